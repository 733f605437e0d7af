create type account_kind as enum ('user', 'node', 'system');

create type file_status as enum ('uploading', 'ready', 'deleted');

create type node_status as enum ('joining', 'online', 'offline', 'maintenance', 'draining', 'left', 'disqualified');

create type proof_failure as enum ('bad', 'gone', 'missed', 'error');

create type replica_state as enum ('live', 'lost');

create type upload_state as enum ('open', 'completed', 'aborted', 'expired');

create table agreed_bytes (
    node_id uuid not null,
    day date not null,
    byte_seconds numeric(38,0) not null,
    seconds integer not null,
    constraint agreed_bytes_pkey PRIMARY KEY (node_id, day),
    constraint agreed_bytes_byte_seconds_check CHECK ((byte_seconds >= (0)::numeric)),
    constraint agreed_bytes_seconds_check CHECK (((seconds >= 0) AND (seconds <= 86400))),
    constraint agreed_bytes_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table chunks (
    file_id uuid not null,
    index integer not null,
    id uuid not null,
    size_bytes integer not null,
    fingerprint bytea not null,
    constraint chunks_pkey PRIMARY KEY (file_id, index),
    constraint chunks_index_check CHECK ((index >= 0)),
    constraint chunks_size_bytes_check CHECK ((size_bytes > 0)),
    constraint chunks_file_id_fkey FOREIGN KEY (file_id) REFERENCES files(id)
);

create table coordinator_watches (
    coordinator text not null,
    began_at timestamp with time zone not null,
    ended_at timestamp with time zone
);

create table coordinators (
    peer_id text not null,
    addresses text[] not null default '{}'::text[],
    started_at timestamp with time zone not null,
    alive_at timestamp with time zone not null,
    constraint coordinators_pkey PRIMARY KEY (peer_id)
) with (fillfactor=50);

create table credit_purchases (
    id uuid not null,
    user_id uuid not null,
    provider text not null,
    provider_ref text not null,
    amount_usd_cents bigint not null,
    micro_credits bigint not null,
    tx bigint,
    created_at timestamp with time zone not null,
    session text,
    checkout_url text,
    failed_at timestamp with time zone,
    constraint credit_purchases_pkey PRIMARY KEY (id),
    constraint credit_purchases_provider_provider_ref_key UNIQUE (provider, provider_ref),
    constraint credit_purchases_amount_usd_cents_check CHECK ((amount_usd_cents > 0)),
    constraint credit_purchases_micro_credits_check CHECK ((micro_credits > 0)),
    constraint credit_purchases_tx_fkey FOREIGN KEY (tx) REFERENCES ledger_tx(id),
    constraint credit_purchases_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id)
);

create table dial_backs (
    node_id uuid not null,
    tested_at timestamp with time zone not null,
    tested_by text not null,
    reach text not null,
    outcome text not null,
    addresses text[] not null,
    constraint dial_backs_pkey PRIMARY KEY (node_id),
    constraint dial_backs_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id) ON DELETE CASCADE
) with (fillfactor=50);

create table drains (
    node_id uuid not null,
    declared_at timestamp with time zone not null,
    due_at timestamp with time zone not null,
    leased_by text,
    cursor uuid not null default '00000000-0000-0000-0000-000000000000'::uuid,
    pass_began_at timestamp with time zone not null,
    pass_replicas bigint not null default 0,
    pass_bytes bigint not null default 0,
    pass_only_here bigint not null default 0,
    pass_waits_for text,
    replicas_left bigint not null,
    bytes_left bigint not null,
    only_here bigint not null default 0,
    waits_for text,
    constraint drains_pkey PRIMARY KEY (node_id),
    constraint drains_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table files (
    id uuid not null,
    user_id uuid not null,
    name text not null,
    size_bytes bigint,
    chunk_bytes integer not null,
    pieces smallint not null,
    pieces_needed smallint not null default 1,
    status file_status not null default 'uploading'::file_status,
    master_key_id text not null,
    wrapped_key bytea,
    wrap_secret bytea,
    created_at timestamp with time zone not null,
    ready_at timestamp with time zone,
    deleted_at timestamp with time zone,
    cleared_at timestamp with time zone,
    monthly_cost bigint not null default 0,
    paid_micro bigint not null default 0,
    paid_until timestamp with time zone,
    constraint files_pkey PRIMARY KEY (id),
    constraint files_check CHECK (((pieces_needed >= 1) AND (pieces_needed <= pieces))),
    constraint files_check1 CHECK (((status = 'deleted'::file_status) OR ((wrapped_key IS NOT NULL) AND (wrap_secret IS NOT NULL)))),
    constraint files_check2 CHECK (((status <> 'ready'::file_status) OR (size_bytes IS NOT NULL))),
    constraint files_chunk_bytes_check CHECK ((chunk_bytes > 0)),
    constraint files_monthly_cost_check CHECK ((monthly_cost >= 0)),
    constraint files_pieces_check CHECK ((pieces >= 1)),
    constraint files_size_bytes_check CHECK ((size_bytes >= 0)),
    constraint files_master_key_id_fkey FOREIGN KEY (master_key_id) REFERENCES master_keys(id),
    constraint files_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id)
);

create table garbage_candidates (
    node_id uuid not null,
    replica_id uuid not null,
    size_bytes integer not null,
    found_at timestamp with time zone not null,
    first_round bigint not null,
    last_round bigint not null,
    constraint garbage_candidates_pkey PRIMARY KEY (node_id, replica_id),
    constraint garbage_candidates_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table ledger_account (
    id bigint not null generated always as identity,
    kind account_kind not null,
    owner text not null,
    balance bigint not null default 0,
    spent_month date,
    spent bigint not null default 0,
    constraint ledger_account_pkey PRIMARY KEY (id),
    constraint ledger_account_kind_owner_key UNIQUE (kind, owner),
    constraint ledger_account_check CHECK (((kind = 'system'::account_kind) OR (balance >= 0)))
);

create table ledger_entry (
    tx bigint not null,
    account bigint not null,
    amount bigint not null,
    constraint ledger_entry_pkey PRIMARY KEY (tx, account),
    constraint ledger_entry_amount_check CHECK ((amount <> 0)),
    constraint ledger_entry_account_fkey FOREIGN KEY (account) REFERENCES ledger_account(id),
    constraint ledger_entry_tx_fkey FOREIGN KEY (tx) REFERENCES ledger_tx(id)
);

create table ledger_tx (
    id bigint not null generated always as identity,
    kind text not null,
    ref text not null,
    at timestamp with time zone not null,
    constraint ledger_tx_pkey PRIMARY KEY (id),
    constraint ledger_tx_ref_key UNIQUE (ref)
);

create table master_keys (
    id text not null,
    first_used_at timestamp with time zone not null,
    constraint master_keys_pkey PRIMARY KEY (id)
);

create table node_days (
    node_id uuid not null,
    day date not null,
    present_seconds integer not null,
    counted_seconds integer not null,
    present smallint[],
    counted smallint[],
    stated boolean not null default false,
    constraint node_days_pkey PRIMARY KEY (node_id, day),
    constraint node_days_check CHECK (((present_seconds >= 0) AND (present_seconds <= counted_seconds))),
    constraint node_days_counted_check CHECK ((cardinality(counted) = 96)),
    constraint node_days_present_check CHECK ((cardinality(present) = 96)),
    constraint node_days_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table node_presences (
    node_id uuid not null,
    coordinator text not null,
    began_at timestamp with time zone not null,
    ended_at timestamp with time zone,
    constraint node_presences_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table node_reputations (
    node_id uuid not null,
    alpha double precision not null,
    beta double precision not null,
    answer_alpha double precision not null,
    answer_beta double precision not null,
    vetting_passed bigint not null default 0,
    first_passed_at timestamp with time zone,
    last_round bigint,
    asked bigint not null default 0,
    passed bigint not null default 0,
    failed bigint not null default 0,
    missed bigint not null default 0,
    errors bigint not null default 0,
    offline bigint not null default 0,
    constraint node_reputations_pkey PRIMARY KEY (node_id),
    constraint node_reputations_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table node_statements (
    node_id uuid not null,
    day date not null,
    age_days integer not null,
    byte_seconds numeric(38,0) not null,
    present_seconds integer not null,
    counted_seconds integer not null,
    asked integer not null,
    missed integer not null,
    failed integer not null,
    rounds smallint not null,
    unproved smallint not null,
    tariff integer not null,
    reward bigint not null,
    earned bigint not null,
    held bigint not null,
    previous bytea not null,
    hash bytea not null,
    coordinator text not null,
    signature bytea not null,
    made_at timestamp with time zone not null,
    earned_total bigint not null,
    constraint node_statements_pkey PRIMARY KEY (node_id, day),
    constraint node_statements_check CHECK (((held >= 0) AND (held <= earned))),
    constraint node_statements_earned_check CHECK ((earned >= 0)),
    constraint node_statements_hash_check CHECK ((octet_length(hash) = 32)),
    constraint node_statements_previous_check CHECK ((octet_length(previous) = 32)),
    constraint node_statements_signature_check CHECK ((octet_length(signature) = 64)),
    constraint node_statements_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id),
    constraint node_statements_tariff_fkey FOREIGN KEY (tariff) REFERENCES tariffs(version)
);

create table node_transitions (
    id bigint not null generated always as identity,
    node_id uuid not null,
    at timestamp with time zone not null,
    from_status node_status,
    to_status node_status not null,
    reason text not null,
    until timestamp with time zone,
    coordinator text,
    constraint node_transitions_pkey PRIMARY KEY (id),
    constraint node_transitions_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table nodes (
    id uuid not null,
    peer_id text not null,
    public_key bytea not null,
    name text not null,
    operator_id uuid,
    region text,
    api_key_hash bytea not null,
    challenged_at timestamp with time zone not null,
    registered_at timestamp with time zone not null,
    status node_status not null default 'joining'::node_status,
    capacity_bytes bigint not null,
    used_bytes bigint not null default 0,
    free_bytes bigint not null default 0,
    chunk_count bigint not null default 0,
    version text not null default ''::text,
    addresses text[] not null default '{}'::text[],
    observed_address text,
    reputation double precision not null default 1,
    last_seen_at timestamp with time zone,
    status_since timestamp with time zone not null default '1970-01-01 00:00:00+00'::timestamp with time zone,
    status_reason text not null default 'registered'::text,
    status_until timestamp with time zone,
    absent_since timestamp with time zone,
    unfolded_from date not null default '9999-12-31'::date,
    vetted_at timestamp with time zone,
    suspended_at timestamp with time zone,
    judged_because text,
    constraint nodes_pkey PRIMARY KEY (id),
    constraint nodes_api_key_hash_key UNIQUE (api_key_hash),
    constraint nodes_peer_id_key UNIQUE (peer_id),
    constraint nodes_public_key_key UNIQUE (public_key),
    constraint nodes_capacity_bytes_check CHECK ((capacity_bytes >= 0)),
    constraint nodes_public_key_check CHECK ((octet_length(public_key) = 32)),
    constraint nodes_operator_id_fkey FOREIGN KEY (operator_id) REFERENCES users(id)
) with (fillfactor=50);

create table payout_requests (
    id uuid not null,
    node_id uuid not null,
    amount bigint not null,
    status text not null default 'pending'::text,
    destination text not null,
    at timestamp with time zone not null,
    settled_at timestamp with time zone,
    note text,
    constraint payout_requests_pkey PRIMARY KEY (id),
    constraint payout_requests_amount_check CHECK ((amount > 0)),
    constraint payout_requests_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'paid'::text, 'refused'::text]))),
    constraint payout_requests_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table proof_failures (
    challenge_id uuid not null,
    round bigint not null,
    node_id uuid not null,
    replica_id uuid not null,
    outcome proof_failure not null,
    seed bytea not null,
    difficulty smallint not null,
    root bytea not null,
    sealed_bytes integer not null,
    tries smallint not null,
    detail text not null,
    at timestamp with time zone not null,
    constraint proof_failures_pkey PRIMARY KEY (challenge_id),
    constraint proof_failures_difficulty_check CHECK (((difficulty >= 1) AND (difficulty <= 64))),
    constraint proof_failures_root_check CHECK ((octet_length(root) = 32)),
    constraint proof_failures_seed_check CHECK ((octet_length(seed) = 32)),
    constraint proof_failures_tries_check CHECK ((tries >= 1)),
    constraint proof_failures_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id),
    constraint proof_failures_round_fkey FOREIGN KEY (round) REFERENCES proof_rounds(round)
);

create table proof_parts (
    round bigint not null,
    part smallint not null,
    leased_by text,
    leased_until timestamp with time zone,
    done_at timestamp with time zone,
    constraint proof_parts_pkey PRIMARY KEY (round, part),
    constraint proof_parts_round_fkey FOREIGN KEY (round) REFERENCES proof_rounds(round)
);

create table proof_retries (
    challenge_id uuid not null,
    round bigint not null,
    node_id uuid not null,
    replica_id uuid not null,
    seed bytea not null,
    difficulty smallint not null,
    tries smallint not null,
    due_at timestamp with time zone not null,
    constraint proof_retries_pkey PRIMARY KEY (challenge_id),
    constraint proof_retries_difficulty_check CHECK (((difficulty >= 1) AND (difficulty <= 64))),
    constraint proof_retries_seed_check CHECK ((octet_length(seed) = 32)),
    constraint proof_retries_tries_check CHECK ((tries >= 1)),
    constraint proof_retries_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id),
    constraint proof_retries_replica_id_fkey FOREIGN KEY (replica_id) REFERENCES replicas(id) ON DELETE CASCADE,
    constraint proof_retries_round_fkey FOREIGN KEY (round) REFERENCES proof_rounds(round)
);

create table proof_rounds (
    round bigint not null,
    begins_at timestamp with time zone not null,
    judged_at timestamp with time zone,
    suspicion text,
    constraint proof_rounds_pkey PRIMARY KEY (round)
);

create table proof_sums (
    round bigint not null,
    node_id uuid not null,
    asked integer not null default 0,
    passed integer not null default 0,
    failed integer not null default 0,
    missed integer not null default 0,
    errors integer not null default 0,
    offline integer not null default 0,
    timeouts integer not null default 0,
    answer_ms bigint not null default 0,
    quickest_ms integer,
    constraint proof_sums_pkey PRIMARY KEY (round, node_id),
    constraint proof_sums_answer_ms_check CHECK ((answer_ms >= 0)),
    constraint proof_sums_asked_check CHECK ((asked >= 0)),
    constraint proof_sums_check CHECK ((((((passed + failed) + missed) + errors) + offline) <= asked)),
    constraint proof_sums_errors_check CHECK ((errors >= 0)),
    constraint proof_sums_failed_check CHECK ((failed >= 0)),
    constraint proof_sums_missed_check CHECK ((missed >= 0)),
    constraint proof_sums_offline_check CHECK ((offline >= 0)),
    constraint proof_sums_passed_check CHECK ((passed >= 0)),
    constraint proof_sums_quickest_ms_check CHECK ((quickest_ms >= 0)),
    constraint proof_sums_timeouts_check CHECK ((timeouts >= 0)),
    constraint proof_sums_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id),
    constraint proof_sums_round_fkey FOREIGN KEY (round) REFERENCES proof_rounds(round)
);

create table reconciliations (
    node_id uuid not null,
    due_at timestamp with time zone not null,
    leased_by text,
    rounds bigint not null default 0,
    compared_at timestamp with time zone,
    agreed_count bigint not null default 0,
    agreed_bytes bigint not null default 0,
    lost_count bigint not null default 0,
    garbage_count bigint not null default 0,
    held_at timestamp with time zone,
    allowed_at timestamp with time zone,
    constraint reconciliations_pkey PRIMARY KEY (node_id),
    constraint reconciliations_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table repair_scans (
    node_id uuid not null,
    reason text not null,
    queued_at timestamp with time zone not null,
    due_at timestamp with time zone not null,
    cursor uuid not null default '00000000-0000-0000-0000-000000000000'::uuid,
    revision integer not null default 0,
    leased_by text,
    finished_at timestamp with time zone,
    stage smallint not null default 0,
    silent_since timestamp with time zone,
    constraint repair_scans_pkey PRIMARY KEY (node_id),
    constraint repair_scans_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table repairs (
    file_id uuid not null,
    chunk_index integer not null,
    live smallint not null,
    reason text not null,
    queued_at timestamp with time zone not null,
    due_at timestamp with time zone not null,
    tries integer not null default 0,
    revision integer not null default 0,
    leased_by text,
    failure text,
    constraint repairs_pkey PRIMARY KEY (file_id, chunk_index)
);

create table replica_deletions (
    replica_id uuid not null,
    node_id uuid not null,
    queued_at timestamp with time zone not null,
    tries integer not null default 0,
    next_try_at timestamp with time zone not null,
    to_trash boolean not null default false,
    constraint replica_deletions_pkey PRIMARY KEY (replica_id),
    constraint replica_deletions_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table replicas (
    id uuid not null,
    file_id uuid not null,
    chunk_index integer not null,
    number smallint not null,
    node_id uuid not null,
    state replica_state not null default 'live'::replica_state,
    root bytea not null,
    sealed_bytes integer not null,
    slot smallint not null,
    stored_at timestamp with time zone not null,
    lost_at timestamp with time zone,
    lost_reason text,
    digest_high bigint not null generated always as (((('x'::text || substr(encode(sha256(((uuid_send(id) || root) || int4send(sealed_bytes))), 'hex'::text), 1, 16)))::bit(64))::bigint) stored,
    digest_low bigint not null generated always as (((('x'::text || substr(encode(sha256(((uuid_send(id) || root) || int4send(sealed_bytes))), 'hex'::text), 17, 16)))::bit(64))::bigint) stored,
    constraint replicas_pkey PRIMARY KEY (id),
    constraint replicas_root_check CHECK ((octet_length(root) = 32)),
    constraint replicas_slot_check CHECK (((slot >= 0) AND (slot <= 16383))),
    constraint replicas_file_id_chunk_index_fkey FOREIGN KEY (file_id, chunk_index) REFERENCES chunks(file_id, index),
    constraint replicas_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table reputation_events (
    id bigint not null generated always as identity,
    node_id uuid not null,
    at timestamp with time zone not null,
    kind text not null,
    round bigint,
    score double precision not null,
    answering double precision not null,
    reason text not null,
    constraint reputation_events_pkey PRIMARY KEY (id),
    constraint reputation_events_kind_check CHECK ((kind = ANY (ARRAY['fault'::text, 'vetted'::text, 'suspended'::text, 'resumed'::text, 'disqualified'::text, 'reinstated'::text]))),
    constraint reputation_events_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id)
);

create table schema_migration (
    version integer not null,
    name text not null,
    sha256 text not null,
    applied_at timestamp with time zone not null default now(),
    constraint schema_migration_pkey PRIMARY KEY (version)
);

create table tariffs (
    version integer not null,
    valid_from timestamp with time zone not null,
    node_reward bigint not null,
    created_at timestamp with time zone not null default now(),
    reason text not null,
    user_price bigint not null,
    constraint tariffs_pkey PRIMARY KEY (version),
    constraint tariffs_valid_from_key UNIQUE (valid_from),
    constraint tariffs_node_reward_check CHECK ((node_reward >= 0)),
    constraint tariffs_user_price_check CHECK ((user_price >= 0)),
    constraint tariffs_version_check CHECK ((version >= 1))
);

create table uploads (
    id uuid not null,
    file_id uuid not null,
    user_id uuid not null,
    state upload_state not null default 'open'::upload_state,
    created_at timestamp with time zone not null,
    expires_at timestamp with time zone not null,
    streamed_by text,
    constraint uploads_pkey PRIMARY KEY (id),
    constraint uploads_file_id_key UNIQUE (file_id),
    constraint uploads_file_id_fkey FOREIGN KEY (file_id) REFERENCES files(id),
    constraint uploads_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id)
);

create table users (
    id uuid not null,
    email text not null,
    password_hash text not null,
    created_at timestamp with time zone not null,
    past_due_since timestamp with time zone,
    charge_after timestamp with time zone,
    budget_micro bigint,
    constraint users_pkey PRIMARY KEY (id),
    constraint users_budget_micro_check CHECK ((budget_micro >= 0))
);

CREATE INDEX coordinator_watches_ended ON public.coordinator_watches USING btree (ended_at);

CREATE UNIQUE INDEX coordinator_watches_open ON public.coordinator_watches USING btree (coordinator) WHERE (ended_at IS NULL);

CREATE INDEX dial_backs_direct ON public.dial_backs USING btree (tested_at) WHERE (reach = 'direct'::text);

CREATE INDEX drains_due ON public.drains USING btree (due_at);

CREATE INDEX files_due ON public.files USING btree (paid_until) WHERE ((status = 'ready'::file_status) AND (paid_until IS NOT NULL));

CREATE INDEX files_due_of_user ON public.files USING btree (user_id, paid_until) WHERE ((status = 'ready'::file_status) AND (paid_until IS NOT NULL));

CREATE INDEX files_of_user ON public.files USING btree (user_id, created_at DESC, id DESC) WHERE (status <> 'deleted'::file_status);

CREATE INDEX files_to_clear ON public.files USING btree (deleted_at) WHERE ((status = 'deleted'::file_status) AND (cleared_at IS NULL));

CREATE INDEX garbage_candidates_found ON public.garbage_candidates USING btree (node_id, found_at);

CREATE INDEX ledger_entry_of_account ON public.ledger_entry USING btree (account, tx);

CREATE INDEX node_days_by_day ON public.node_days USING btree (day);

CREATE INDEX node_days_unstated ON public.node_days USING btree (day, node_id) WHERE (NOT stated);

CREATE INDEX node_presences_of_node ON public.node_presences USING btree (node_id, ended_at);

CREATE UNIQUE INDEX node_presences_open ON public.node_presences USING btree (coordinator, node_id) WHERE (ended_at IS NULL);

CREATE INDEX node_transitions_by_time ON public.node_transitions USING btree (node_id, at, id);

CREATE INDEX node_transitions_of_node ON public.node_transitions USING btree (node_id, id);

CREATE INDEX nodes_declared ON public.nodes USING btree (status_until) WHERE ((status = ANY (ARRAY['maintenance'::node_status, 'draining'::node_status])) AND (status_until IS NOT NULL));

CREATE INDEX nodes_draining ON public.nodes USING btree (id) WHERE (status = 'draining'::node_status);

CREATE INDEX nodes_misjudged ON public.nodes USING btree (id) WHERE (((status = 'online'::node_status) AND (absent_since IS NOT NULL)) OR ((status = ANY (ARRAY['joining'::node_status, 'offline'::node_status])) AND (absent_since IS NULL)));

CREATE INDEX nodes_silent ON public.nodes USING btree (id) WHERE ((absent_since IS NOT NULL) AND (status = ANY (ARRAY['online'::node_status, 'offline'::node_status, 'draining'::node_status])));

CREATE INDEX nodes_unfolded ON public.nodes USING btree (unfolded_from);

CREATE INDEX payout_requests_of_node ON public.payout_requests USING btree (node_id, at);

CREATE INDEX payout_requests_pending ON public.payout_requests USING btree (at, id) WHERE (status = 'pending'::text);

CREATE INDEX proof_failures_by_time ON public.proof_failures USING btree (at);

CREATE INDEX proof_failures_of_node ON public.proof_failures USING btree (node_id, at, challenge_id);

CREATE INDEX proof_retries_due ON public.proof_retries USING btree (due_at);

CREATE INDEX proof_retries_of_node ON public.proof_retries USING btree (node_id);

CREATE INDEX proof_retries_of_replica ON public.proof_retries USING btree (replica_id);

CREATE INDEX proof_rounds_unjudged ON public.proof_rounds USING btree (round) WHERE (judged_at IS NULL);

CREATE INDEX proof_sums_of_node ON public.proof_sums USING btree (node_id, round);

CREATE INDEX reconciliations_due ON public.reconciliations USING btree (due_at);

CREATE INDEX repair_scans_due ON public.repair_scans USING btree (due_at) WHERE (finished_at IS NULL);

CREATE INDEX repairs_due ON public.repairs USING btree (live, due_at, file_id, chunk_index);

CREATE INDEX repairs_queued ON public.repairs USING btree (queued_at);

CREATE INDEX replica_deletions_due ON public.replica_deletions USING btree (node_id, next_try_at);

CREATE INDEX replicas_of_chunk ON public.replicas USING btree (file_id, chunk_index, number);

CREATE INDEX replicas_of_node ON public.replicas USING btree (node_id, id) INCLUDE (state, sealed_bytes, digest_high, digest_low);

CREATE INDEX replicas_of_slot ON public.replicas USING btree (slot);

CREATE INDEX reputation_events_of_node ON public.reputation_events USING btree (node_id, id);

CREATE INDEX uploads_open ON public.uploads USING btree (expires_at) WHERE (state = 'open'::upload_state);

CREATE INDEX uploads_streamed ON public.uploads USING btree (streamed_by) WHERE ((state = 'open'::upload_state) AND (streamed_by IS NOT NULL));

CREATE UNIQUE INDEX users_email ON public.users USING btree (lower(email));

CREATE INDEX users_past_due ON public.users USING btree (id) WHERE (past_due_since IS NOT NULL);

CREATE OR REPLACE FUNCTION public.ledger_immutable()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
    raise exception 'the ledger is append-only';
end $function$;

CREATE OR REPLACE FUNCTION public.ledger_post(p_kind text, p_ref text, p_at timestamp with time zone, p_accounts bigint[], p_amounts bigint[])
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
declare
    t bigint;
    this_month date := date_trunc('month', p_at at time zone 'UTC')::date;
begin
    if cardinality(p_accounts) <> cardinality(p_amounts) or (select sum(a) from unnest(p_amounts) a) <> 0 then
        raise exception 'entries do not add up to zero';
    end if;
    -- first the locks, in one order (no deadlock), before any foreign key check touches the rows (no multixacts)
    perform 1 from ledger_account where id = any (p_accounts) and kind <> 'system' order by id for no key update;
    insert into ledger_tx (kind, ref, at) values (p_kind, p_ref, p_at) on conflict (ref) do nothing returning id into t;
    if t is null then
        return null;
    end if;
    if p_kind in ('reserve', 'release', 'storage', 'storage_day') then
        update ledger_account l set balance = balance + u.m,
                spent = case when l.spent_month > this_month then l.spent
                             when l.spent_month = this_month then l.spent - u.m
                             else -u.m end,
                spent_month = greatest(l.spent_month, this_month)
            from unnest(p_accounts, p_amounts) u(a, m) where l.id = u.a and l.kind <> 'system';
    else
        update ledger_account l set balance = balance + u.m
            from unnest(p_accounts, p_amounts) u(a, m) where l.id = u.a and l.kind <> 'system';
    end if;
    insert into ledger_entry (tx, account, amount) select t, a, m from unnest(p_accounts, p_amounts) u(a, m);
    return t;
end $function$;

CREATE TRIGGER immutable BEFORE DELETE OR UPDATE OR TRUNCATE ON public.ledger_entry FOR EACH STATEMENT EXECUTE FUNCTION ledger_immutable();

CREATE TRIGGER immutable BEFORE DELETE OR UPDATE OR TRUNCATE ON public.ledger_tx FOR EACH STATEMENT EXECUTE FUNCTION ledger_immutable();
