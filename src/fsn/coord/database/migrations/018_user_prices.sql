-- What users pay is decided on by date, as what nodes earn is; and users may bound what they spend.

alter table tariffs add column user_price bigint not null default 1500000 check (user_price >= 0); -- micro-credits for 10^9 bytes, 720 h, a replica
alter table tariffs alter column user_price drop default;

alter table users add column budget_micro bigint check (budget_micro >= 0);     -- of a calendar month (UTC); null: as much as there is

-- From when on a month's bookings are, without reading those before.
create index ledger_tx_by_time on ledger_tx using brin (at) with (pages_per_range = 16);
