-- How long a node's answers to challenges took, of those that passed, by the coordinator's clock: shown, never judged.

alter table proof_sums
    add column answer_ms bigint not null default 0 check (answer_ms >= 0),  -- all together
    add column quickest_ms integer check (quickest_ms >= 0);                -- null: none passed, or it was before this was noted
