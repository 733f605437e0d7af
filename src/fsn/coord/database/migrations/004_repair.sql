-- Replicas that were lost, the chunks that wait for repair, the nodes whose replicas are being looked at again.

alter table replicas add column lost_at timestamptz, add column lost_reason text;   -- with state 'lost'; the row goes once enough others live

drop index replicas_of_node;
create index replicas_of_node on replicas (node_id, id);    -- in the order of the ids: a scan has a cursor, reconciliation has prefixes

-- One row a chunk. No foreign key: a deleted file's chunks leave without looking here, and who takes a row up drops it then.
create table repairs (
    file_id uuid not null,
    chunk_index integer not null,
    live smallint not null,                 -- replicas that could be read when it was queued or last looked at: fewest first
    reason text not null,                   -- why it was queued
    queued_at timestamptz not null,
    due_at timestamptz not null,            -- not before; also the end of a lease, and of a pause after a failure
    tries integer not null default 0,
    revision integer not null default 0,    -- grows when it is queued again: who works on it must look once more
    leased_by text,                         -- who works on it until due_at
    failure text,                           -- what came in the way the last time
    primary key (file_id, chunk_index)
);
create index repairs_due on repairs (live, due_at, file_id, chunk_index);
create index repairs_queued on repairs (queued_at);

-- One row a node. A node that is silent keeps its row after the scan: it says which silence was looked at, and how far.
create table repair_scans (
    node_id uuid primary key references nodes,
    reason text not null,
    queued_at timestamptz not null,
    due_at timestamptz not null,            -- not before; also the end of a lease
    cursor uuid not null default '00000000-0000-0000-0000-000000000000',    -- the last replica that was looked at
    revision integer not null default 0,    -- grows when it is queued again: the scan begins anew
    leased_by text,
    finished_at timestamptz,
    stage smallint not null default 0,      -- of a silence: 1 chunks with few other replicas, 2 all
    silent_since timestamptz                -- of a silence: which one
);
create index repair_scans_due on repair_scans (due_at) where finished_at is null;
