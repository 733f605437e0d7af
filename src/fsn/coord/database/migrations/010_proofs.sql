-- Proofs of storage: rounds and their parts, what came of them in sums, each failure with its evidence; and reputation, made of the sums.

-- Round n begins n * 4 hours after 1970. Until `judged_at` its sums may grow.
create table proof_rounds (
    round bigint primary key,
    begins_at timestamptz not null,
    judged_at timestamptz,                  -- reputations have been reckoned from it
    suspicion text                          -- so many nodes did not answer that the coordinators suspect themselves: nobody is blamed
);
create index proof_rounds_unjudged on proof_rounds (round) where judged_at is null;

-- A part of the slot space; coordinators take them by lease. One that a coordinator died with is done twice, and counted once.
create table proof_parts (
    round bigint not null references proof_rounds,
    part smallint not null,
    leased_by text,
    leased_until timestamptz,
    done_at timestamptz,
    primary key (round, part)
);

-- What became of a node's challenges in a round. Successes are no rows of their own.
create table proof_sums (
    round bigint not null references proof_rounds,
    node_id uuid not null references nodes,
    asked integer not null default 0 check (asked >= 0),
    passed integer not null default 0 check (passed >= 0),
    failed integer not null default 0 check (failed >= 0),   -- a wrong answer, or the node said that it has not got it
    missed integer not null default 0 check (missed >= 0),   -- no answer in time, in all tries
    errors integer not null default 0 check (errors >= 0),   -- refused
    offline integer not null default 0 check (offline >= 0), -- the node was not there
    primary key (round, node_id),
    check (passed + failed + missed + errors + offline <= asked)
);
create index proof_sums_of_node on proof_sums (node_id, round);

create type proof_failure as enum ('bad', 'gone', 'missed', 'error');

-- A challenge that did not end well, with what anybody needs to judge it again.
create table proof_failures (
    challenge_id uuid primary key,
    round bigint not null references proof_rounds,
    node_id uuid not null references nodes,
    replica_id uuid not null,               -- no reference: the replica may be gone meanwhile
    outcome proof_failure not null,
    seed bytea not null check (octet_length(seed) = 32),
    difficulty smallint not null check (difficulty between 1 and 64),
    root bytea not null check (octet_length(root) = 32),
    sealed_bytes integer not null,
    tries smallint not null check (tries >= 1),
    detail text not null,                   -- what was wanted and what came
    at timestamptz not null
);
create index proof_failures_of_node on proof_failures (node_id, at, challenge_id);
create index proof_failures_by_time on proof_failures (at);

-- Contained: no answer in time. It is asked again with the same seed, and counts in the round in which that ends.
create table proof_retries (
    challenge_id uuid primary key,
    round bigint not null references proof_rounds,  -- in which it was asked first
    node_id uuid not null references nodes,
    replica_id uuid not null references replicas on delete cascade,
    seed bytea not null check (octet_length(seed) = 32),
    difficulty smallint not null check (difficulty between 1 and 64),
    tries smallint not null check (tries >= 1),
    due_at timestamptz not null             -- not before; also the end of a lease
);
create index proof_retries_due on proof_retries (due_at);
create index proof_retries_of_node on proof_retries (node_id);
create index proof_retries_of_replica on proof_retries (replica_id);

-- core/reputation.py has the formulas. A node without a row is a new one.
create table node_reputations (
    node_id uuid primary key references nodes,
    alpha double precision not null,
    beta double precision not null,
    answer_alpha double precision not null,
    answer_beta double precision not null,
    vetting_passed bigint not null default 0,       -- proofs since vetting began
    first_passed_at timestamptz,
    vetted_at timestamptz,
    suspended_at timestamptz,               -- null: it is not
    reason text,                            -- why it is suspended or disqualified
    last_round bigint,                      -- the last one reckoned in
    asked bigint not null default 0,        -- since it was registered, as in proof_sums
    passed bigint not null default 0,
    failed bigint not null default 0,
    missed bigint not null default 0,
    errors bigint not null default 0,
    offline bigint not null default 0
);

-- What moved a reputation: rounds in which not all went well, and what followed. Rounds without fault are no rows.
create table reputation_events (
    id bigint generated always as identity primary key,
    node_id uuid not null references nodes,
    at timestamptz not null,
    kind text not null check (kind in ('fault', 'vetted', 'suspended', 'resumed', 'disqualified', 'reinstated')),
    round bigint,                           -- null where an administrator did it
    score double precision not null,        -- after it
    answering double precision not null,
    reason text not null
);
create index reputation_events_of_node on reputation_events (node_id, id);
