-- Storing is paid for 30 days in advance; after them each file is charged day by day, at the price that it was uploaded at.

alter table files
    add column monthly_cost bigint not null default 0 check (monthly_cost >= 0),  -- micro-credits for 30 days
    add column paid_micro bigint not null default 0,                              -- what it has cost so far
    add column paid_until timestamptz;                                            -- null: it costs nothing
create index files_due on files (paid_until) where status = 'ready' and paid_until is not null;
create index files_due_of_user on files (user_id, paid_until) where status = 'ready' and paid_until is not null;

-- What is stored already was paid when it became ready.
update files f set paid_until = f.ready_at + interval '30 days', monthly_cost = p.amount, paid_micro = p.amount
    from (select substr(t.ref, 9)::uuid as file, e.amount from ledger_tx t join ledger_entry e on e.tx = t.id and e.amount > 0
          where t.kind = 'storage' and t.ref like 'storage:%') p
    where p.file = f.id and f.status = 'ready';

alter table users
    add column past_due_since timestamptz,      -- the balance did not cover a day; null: nothing is owed
    add column charge_after timestamptz;        -- and is not looked at again before
create index users_past_due on users (id) where past_due_since is not null;
