-- An administrator says how a payout ended.

alter table payout_requests
    add column settled_at timestamptz,      -- null while it is pending
    add column note text;                   -- the administrator's words: how it was paid, why it was refused
create index payout_requests_pending on payout_requests (at, id) where status = 'pending';
update payout_requests set settled_at = at where status <> 'pending';
