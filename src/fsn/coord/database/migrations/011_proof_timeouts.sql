-- Which nodes did not answer in a round: when too many did not, it is rather us. And what of a reputation placement wants to know.

alter table proof_sums add column timeouts integer not null default 0 check (timeouts >= 0); -- first tries without an answer; not in `asked`

alter table nodes
    add column vetted_at timestamptz,       -- null: a new node, which gets little
    add column suspended_at timestamptz,    -- null: it is not
    add column judged_because text;         -- why it is suspended or disqualified

alter table node_reputations drop column vetted_at, drop column suspended_at, drop column reason;
