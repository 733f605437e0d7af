-- What a user spends in a calendar month (UTC) is added up as it is booked: a budget is then one row to look at, however much was booked.

alter table ledger_account
    add column spent_month date,                    -- the first of the latest month with a booking for storing; null: there was none
    add column spent bigint not null default 0;     -- micro-credits charged and set aside in it, less what was given back

create or replace function ledger_post(p_kind text, p_ref text, p_at timestamptz, p_accounts bigint[], p_amounts bigint[])
returns bigint language plpgsql as $$
declare
    t bigint;
    this_month date := date_trunc('month', p_at at time zone 'UTC')::date;
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
    if p_kind in ('reserve', 'release', 'storage', 'storage_day') then
        update ledger_account l set balance = balance + u.m,
                spent = case when l.spent_month > this_month then l.spent
                             when l.spent_month = this_month then l.spent - u.m
                             else -u.m end,
                spent_month = greatest(l.spent_month, this_month)
            from unnest(p_accounts, p_amounts) u(a, m) where l.id = u.a and l.kind <> 'system';
    else
        update ledger_account l set balance = balance + u.m
            from unnest(p_accounts, p_amounts) u(a, m) where l.id = u.a and l.kind <> 'system';
    end if;
    insert into ledger_entry (tx, account, amount) select t, a, m from unnest(p_accounts, p_amounts) u(a, m);
    return t;
end $$;

update ledger_account l set spent = s.spent, spent_month = s.month
    from (select distinct on (account) account, date_trunc('month', t.at at time zone 'UTC')::date as month, -sum(e.amount) as spent
          from ledger_entry e join ledger_tx t on t.id = e.tx join ledger_account a on a.id = e.account and a.kind = 'user'
          where t.kind in ('reserve', 'release', 'storage', 'storage_day')
          group by account, date_trunc('month', t.at at time zone 'UTC') order by account, month desc) s
    where s.account = l.id;

-- It served the sums that nobody makes any more.
drop index ledger_tx_by_time;
