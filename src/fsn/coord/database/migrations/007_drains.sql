-- Nodes on their way out, and how far each is. What remains on a node is counted over and over, a page at a time, by its replicas' ids.

create table drains (
    node_id uuid primary key references nodes,
    declared_at timestamptz not null,
    due_at timestamptz not null,            -- when it is to be looked at; also the end of a lease
    leased_by text,
    cursor uuid not null default '00000000-0000-0000-0000-000000000000',    -- the last replica of this pass
    pass_began_at timestamptz not null,
    pass_replicas bigint not null default 0,
    pass_bytes bigint not null default 0,
    pass_only_here bigint not null default 0,
    pass_waits_for text,
    replicas_left bigint not null,          -- as the last whole pass counted; before it, as the node said
    bytes_left bigint not null,
    only_here bigint not null default 0,    -- chunks that no node that is there and stays has another replica of
    waits_for text                          -- what kept copies from being made
);
create index drains_due on drains (due_at);
