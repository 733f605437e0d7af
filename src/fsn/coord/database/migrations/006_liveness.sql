-- Who is there and who watches: states of nodes with their history, who hears whom, coordinators over this database, uptime.

alter table nodes
    add column status_since timestamptz not null default 'epoch',
    add column status_reason text not null default 'registered',
    add column status_until timestamptz,            -- when a declared maintenance ends, or by when a drain should be over
    add column absent_since timestamptz,            -- since when no living coordinator hears it; null while one does
    add column unfolded_from date not null default '9999-12-31';    -- the first day (UTC) whose uptime is not in node_days yet
update nodes set status_since = coalesce(last_seen_at, registered_at),
    status_reason = 'before states were recorded',
    absent_since = coalesce(last_seen_at, registered_at),
    unfolded_from = (registered_at at time zone 'UTC')::date;
create index nodes_silent on nodes (id) where absent_since is not null and status in ('online', 'offline', 'draining');
create index nodes_misjudged on nodes (id) where (status = 'online' and absent_since is not null)
    or (status in ('joining', 'offline') and absent_since is null);
create index nodes_declared on nodes (status_until) where status in ('maintenance', 'draining') and status_until is not null;
create index nodes_draining on nodes (id) where status = 'draining';
create index nodes_unfolded on nodes (unfolded_from);

create table node_transitions (
    id bigint generated always as identity primary key,
    node_id uuid not null references nodes,
    at timestamptz not null,
    from_status node_status,                        -- null: the node's registration
    to_status node_status not null,
    reason text not null,
    until timestamptz,
    coordinator text                                -- the peer id of the coordinator that made it; null: made at the command line
);
create index node_transitions_of_node on node_transitions (node_id, id);
insert into node_transitions (node_id, at, to_status, reason)
    select id, status_since, status, status_reason from nodes;

-- The coordinators over this database. One whose alive_at stands still is not there.
create table coordinators (
    peer_id text primary key,
    addresses text[] not null default '{}',         -- where nodes may connect to
    started_at timestamptz not null,
    alive_at timestamptz not null
) with (fillfactor = 50);

-- When a coordinator was there, so that a node could have been heard. Open ones last until their coordinator's alive_at.
create table coordinator_watches (
    coordinator text not null,
    began_at timestamptz not null,
    ended_at timestamptz
);
create unique index coordinator_watches_open on coordinator_watches (coordinator) where ended_at is null;
create index coordinator_watches_ended on coordinator_watches (ended_at);

-- When a coordinator heard a node. Open ones last until their coordinator's alive_at.
create table node_presences (
    node_id uuid not null references nodes,
    coordinator text not null,
    began_at timestamptz not null,
    ended_at timestamptz
);
create unique index node_presences_open on node_presences (coordinator, node_id) where ended_at is null;
create index node_presences_of_node on node_presences (node_id, ended_at);

-- Uptime of days gone by: seconds heard, and seconds counted (watched, and neither left nor in maintenance); the same for each quarter of
-- an hour, unless the whole day was both.
create table node_days (
    node_id uuid not null references nodes,
    day date not null,
    present_seconds integer not null,
    counted_seconds integer not null,
    present smallint[] check (cardinality(present) = 96),
    counted smallint[] check (cardinality(counted) = 96),
    primary key (node_id, day),
    check (present_seconds between 0 and counted_seconds)
);
create index node_days_by_day on node_days (day);
