-- Which nodes can be reached by a fresh connection: what the last dial-back of any coordinator found. Nodes that never asked have no row.

create table dial_backs (
    node_id uuid primary key references nodes (id) on delete cascade,
    tested_at timestamptz not null,
    tested_by text not null,              -- peer id of the coordinator that dialled
    reach text not null,                  -- direct or own_connection
    outcome text not null,                -- the most telling of the results: reached, refused, no_answer, wrong_peer, broken, not_tried
    addresses text[] not null             -- where the node was reached
) with (fillfactor = 50);
create index dial_backs_direct on dial_backs (tested_at) where reach = 'direct';
