-- Users, nodes, files, uploads, chunks, replicas. Times are passed in by the program, never taken from now(): tests run on virtual time.

create type node_status as enum ('joining', 'online', 'offline', 'maintenance', 'draining', 'left', 'disqualified');
create type file_status as enum ('uploading', 'ready', 'deleted');
create type upload_state as enum ('open', 'completed', 'aborted', 'expired');
create type replica_state as enum ('live', 'lost');

-- Which master keys the wrapped file keys of this database need. A coordinator without one of them refuses to start,
-- rather than to fail at the first download.
create table master_keys (
    id text primary key,                    -- derived from the key, tells nothing about it
    first_used_at timestamptz not null
);

create table users (
    id uuid primary key,
    email text not null,                    -- as typed; unique whatever its case
    password_hash text not null,            -- bcrypt
    created_at timestamptz not null
);
create unique index users_email on users (lower(email));

create table nodes (
    id uuid primary key,
    peer_id text not null unique,
    public_key bytea not null unique check (octet_length(public_key) = 32),
    name text not null,
    operator_id uuid references users,      -- null: the node is its own operator
    region text,
    api_key_hash bytea not null unique,     -- SHA-256 of a 256-bit random key
    challenged_at timestamptz not null,     -- when the nonce of the last registration was issued: an older one is a replay
    registered_at timestamptz not null,
    status node_status not null default 'joining',
    capacity_bytes bigint not null check (capacity_bytes >= 0),
    used_bytes bigint not null default 0,   -- used .. addresses: the node's own word, from its last heartbeat
    free_bytes bigint not null default 0,
    chunk_count bigint not null default 0,
    version text not null default '',
    addresses text[] not null default '{}',
    observed_address text,                  -- where its connection comes from, as the coordinator sees it
    reputation double precision not null default 1,
    last_seen_at timestamptz
) with (fillfactor = 50);                   -- every heartbeat rewrites a row: with room in its page, and no index on what it changes,
                                            -- no index is touched

create table files (
    id uuid primary key,
    user_id uuid not null references users,
    name text not null,                     -- emptied when the file is deleted
    size_bytes bigint check (size_bytes >= 0),              -- null while a stream of unknown length comes in
    chunk_bytes integer not null check (chunk_bytes > 0),
    pieces smallint not null check (pieces >= 1),           -- the redundancy scheme: any `pieces_needed` of `pieces` give a chunk back;
    pieces_needed smallint not null default 1 check (pieces_needed between 1 and pieces),  -- plain replication is 1 of n
    status file_status not null default 'uploading',
    master_key_id text not null references master_keys,
    wrapped_key bytea,                      -- null from deletion on, with the secret: the file cannot be opened again
    wrap_secret bytea,
    created_at timestamptz not null,
    ready_at timestamptz,
    deleted_at timestamptz,
    cleared_at timestamptz,                 -- when the last of its chunks had left the catalogue after that
    check (status = 'deleted' or (wrapped_key is not null and wrap_secret is not null)),
    check (status <> 'ready' or size_bytes is not null)
);
create index files_of_user on files (user_id, created_at desc, id desc) where status <> 'deleted';
create index files_to_clear on files (deleted_at) where status = 'deleted' and cleared_at is null;

create table uploads (
    id uuid primary key,
    file_id uuid not null unique references files,
    user_id uuid not null references users,
    state upload_state not null default 'open',
    created_at timestamptz not null,
    expires_at timestamptz not null
);
create index uploads_open on uploads (expires_at) where state = 'open';

-- A chunk stands here only when all its wanted replicas are durable on their nodes.
create table chunks (
    file_id uuid not null references files,
    index integer not null check (index >= 0),
    id uuid not null,
    size_bytes integer not null check (size_bytes > 0),
    fingerprint bytea not null,             -- BLAKE3 of the plaintext, keyed from the file key
    primary key (file_id, index)
);

create table replicas (
    id uuid primary key,                    -- sixteen random bytes, drawn when it was sealed
    file_id uuid not null,
    chunk_index integer not null,
    number smallint not null,               -- which piece of the scheme
    node_id uuid not null references nodes,
    state replica_state not null default 'live',
    root bytea not null check (octet_length(root) = 32),
    sealed_bytes integer not null,
    slot smallint not null check (slot between 0 and 16383),    -- random; rounds of proofs walk the slots
    stored_at timestamptz not null,
    foreign key (file_id, chunk_index) references chunks (file_id, index)
);
create index replicas_of_chunk on replicas (file_id, chunk_index, number);
create index replicas_of_node on replicas (node_id);
create index replicas_of_slot on replicas (slot);

-- Sealed bytes that nodes should forget. A row goes when its node has said that they are gone.
create table replica_deletions (
    replica_id uuid primary key,
    node_id uuid not null references nodes,
    queued_at timestamptz not null,
    tries integer not null default 0,
    next_try_at timestamptz not null
);
create index replica_deletions_due on replica_deletions (node_id, next_try_at);
