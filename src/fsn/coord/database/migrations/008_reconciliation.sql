-- What coordinator and node compare: a digest of each replica's row, sums of it by one scan of an index; and what came of it.

-- The first and the second 8 bytes of SHA-256(id | root | sealed_bytes u32 big-endian), as core/reconciliation.py has it.
alter table replicas
    add column digest_high bigint not null generated always as
        (('x' || substr(encode(sha256(uuid_send(id) || root || int4send(sealed_bytes)), 'hex'), 1, 16))::bit(64)::bigint) stored,
    add column digest_low bigint not null generated always as
        (('x' || substr(encode(sha256(uuid_send(id) || root || int4send(sealed_bytes)), 'hex'), 17, 16))::bit(64)::bigint) stored;

drop index replicas_of_node;
create index replicas_of_node on replicas (node_id, id) include (state, sealed_bytes, digest_high, digest_low);

-- One row a node: when it is compared next, and what the last comparison found.
create table reconciliations (
    node_id uuid primary key references nodes,
    due_at timestamptz not null,            -- not before; also the end of a lease
    leased_by text,
    rounds bigint not null default 0,       -- that ended
    compared_at timestamptz,                -- the last one
    agreed_count bigint not null default 0, -- replicas that both sides had in it, and their sealed bytes
    agreed_bytes bigint not null default 0,
    lost_count bigint not null default 0,   -- confirmed and reported
    garbage_count bigint not null default 0,
    held_at timestamptz,                    -- so much is garbage that nothing is deleted before an administrator allows it: since when
    allowed_at timestamptz                  -- an administrator has allowed what was held
);
create index reconciliations_due on reconciliations (due_at);

-- Replicas that lay on a node, and nobody knew. One that is found again in a later round, long after, is garbage.
create table garbage_candidates (
    node_id uuid not null references nodes,
    replica_id uuid not null,
    size_bytes integer not null,
    found_at timestamptz not null,          -- the first time
    first_round bigint not null,
    last_round bigint not null,
    primary key (node_id, replica_id)
);
create index garbage_candidates_found on garbage_candidates (node_id, found_at);

-- Bytes that both sides agree the node has held, times seconds, on one day (UTC). Pay is computed from it.
create table agreed_bytes (
    node_id uuid not null references nodes,
    day date not null,
    byte_seconds numeric(38) not null check (byte_seconds >= 0),
    seconds integer not null check (seconds between 0 and 86400),   -- how much of the day lies between agreeing rounds
    primary key (node_id, day)
);

-- Nobody asked for it: the node may keep the bytes aside for some days.
alter table replica_deletions add column to_trash boolean not null default false;
