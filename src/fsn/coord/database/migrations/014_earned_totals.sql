-- What a node has earned in all, kept with each statement: nodes are told it every minute, however many days they have.

alter table node_statements add column earned_total bigint;
update node_statements s set earned_total = t.total
    from (select node_id, day, sum(earned) over (partition by node_id order by day) as total from node_statements) t
    where s.node_id = t.node_id and s.day = t.day;
alter table node_statements alter column earned_total set not null;
