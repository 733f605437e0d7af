-- What a node passed into within a window: uptime is counted by it.

create index node_transitions_by_time on node_transitions (node_id, at, id);
