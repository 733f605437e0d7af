-- What nodes are paid: tariffs, a statement for each node and day, signed and chained, and payouts that were asked for.

create table tariffs (
    version integer primary key check (version >= 1),
    valid_from timestamptz not null unique,     -- the first moment; a day is paid by the tariff at its beginning
    node_reward bigint not null check (node_reward >= 0),   -- micro-credits for 10^9 sealed bytes and 720 hours
    created_at timestamptz not null default now(),
    reason text not null
);
insert into tariffs (version, valid_from, node_reward, created_at, reason)
    values (1, '1970-01-01 00:00:00+00', 1000000, '1970-01-01 00:00:00+00', 'the first tariff: a credit for a GB-month');

insert into ledger_account (kind, owner) values ('system', 'rewards'), ('system', 'payouts');

-- The inputs of core/economics.py, as they were when the statement was made; everything else follows from them.
create table node_statements (
    node_id uuid not null references nodes,
    day date not null,
    age_days integer not null,
    byte_seconds numeric(38) not null,
    present_seconds integer not null,
    counted_seconds integer not null,
    asked integer not null,
    missed integer not null,
    failed integer not null,
    rounds smallint not null,
    unproved smallint not null,
    tariff integer not null references tariffs,
    reward bigint not null,
    earned bigint not null check (earned >= 0),
    held bigint not null check (held between 0 and earned),
    previous bytea not null check (octet_length(previous) = 32),
    hash bytea not null check (octet_length(hash) = 32),
    coordinator text not null,                  -- its peer id holds the key of the signature
    signature bytea not null check (octet_length(signature) = 64),
    made_at timestamptz not null,
    primary key (node_id, day)
);

alter table node_days add column stated boolean not null default false;
create index node_days_unstated on node_days (day, node_id) where not stated;

create table payout_requests (
    id uuid primary key,
    node_id uuid not null references nodes,
    amount bigint not null check (amount > 0),
    status text not null default 'pending' check (status in ('pending', 'paid', 'refused')),
    destination text not null,
    at timestamptz not null
);
create index payout_requests_of_node on payout_requests (node_id, at);
