-- Money in micro-credits, double entry: the entries are the truth, a balance is a checked cache of them.

create type account_kind as enum ('user', 'node', 'system');

create table ledger_account (
    id bigint generated always as identity primary key,
    kind account_kind not null,
    owner text not null,                        -- a user's or node's id, or a system account's name
    balance bigint not null default 0,          -- not kept for 'system': it would be one hot row for everybody
    check (kind = 'system' or balance >= 0),
    unique (kind, owner)
);

create table ledger_tx (
    id bigint generated always as identity primary key,
    kind text not null,
    ref text not null unique,                   -- idempotency key: a retried request is booked once
    at timestamptz not null
);

create table ledger_entry (
    tx bigint not null references ledger_tx,
    account bigint not null references ledger_account,
    amount bigint not null check (amount <> 0),
    primary key (tx, account)
);
create index ledger_entry_of_account on ledger_entry (account, tx);

-- Book entries that sum to zero, once for each ref. Returns the transaction's id, null when the ref was booked before.
-- Raises 23514 (check_violation) when a balance would fall below zero; nothing is booked then.
create function ledger_post(p_kind text, p_ref text, p_at timestamptz, p_accounts bigint[], p_amounts bigint[]) returns bigint
language plpgsql as $$
declare t bigint;
begin
    if cardinality(p_accounts) <> cardinality(p_amounts) or (select sum(a) from unnest(p_amounts) a) <> 0 then
        raise exception 'entries do not add up to zero';
    end if;
    -- first the locks, in one order (no deadlock), before any foreign key check touches the rows (no multixacts)
    perform 1 from ledger_account where id = any (p_accounts) and kind <> 'system' order by id for no key update;
    insert into ledger_tx (kind, ref, at) values (p_kind, p_ref, p_at) on conflict (ref) do nothing returning id into t;
    if t is null then
        return null;
    end if;
    update ledger_account l set balance = balance + u.m
        from unnest(p_accounts, p_amounts) u(a, m) where l.id = u.a and l.kind <> 'system';
    insert into ledger_entry (tx, account, amount) select t, a, m from unnest(p_accounts, p_amounts) u(a, m);
    return t;
end $$;

create function ledger_immutable() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger is append-only';
end $$;
create trigger immutable before update or delete or truncate on ledger_entry for each statement execute function ledger_immutable();
create trigger immutable before update or delete or truncate on ledger_tx for each statement execute function ledger_immutable();

insert into ledger_account (kind, owner) values ('system', 'grants'), ('system', 'sales'), ('system', 'storage');

create table credit_purchases (
    id uuid primary key,
    user_id uuid not null references users,
    provider text not null,
    provider_ref text not null,
    amount_usd_cents bigint not null check (amount_usd_cents > 0),
    micro_credits bigint not null check (micro_credits > 0),
    tx bigint references ledger_tx,             -- null until paid
    created_at timestamptz not null,
    unique (provider, provider_ref)
);
