-- The one way into the ledger. Called in one round trip; several calls may share one SQL transaction, whose first
-- statement then locks every account that it will touch (lock_ledger_accounts), so that locks are always taken in order.

-- Locks the balances of the named ledger accounts in the order of their names. A lock on a row that does not exist locks
-- nothing, and two first uses would both pass: missing rows are therefore created before they are locked.
create or replace function lock_ledger_accounts(p_names text[]) returns void language plpgsql as $$
declare
  v_wanted int := (select count(distinct name) from unnest(p_names) as n(name));
  v_locked int;
begin
  for attempt in 1..2 loop
    perform 1
      from ledger_account a join ledger_balance b on b.ledger_account = a.id and b.shard = pg_backend_pid() % a.shards
      where a.name = any (p_names) order by a.name for update of b;
    get diagnostics v_locked = row_count;
    exit when v_locked = v_wanted or attempt = 2;
    -- The cash account of a payment company opens with its first payment; a customer's only by being declared.
    insert into ledger_account (name, shards)
      select distinct n.name, 16 from unnest(p_names) as n(name)
      where n.name like 'cash:%' and not exists (select from ledger_account a where a.name = n.name) order by 1
      on conflict (name) do nothing;
    insert into ledger_balance (ledger_account, shard, may_be_negative)
      select a.id, pg_backend_pid() % a.shards, a.account is null from ledger_account a where a.name = any (p_names) order by a.name
      on conflict do nothing;
  end loop;
end $$;

-- Sortable by time, as a version 7 UUID is.
create or replace function new_transaction_id() returns text language sql volatile as $$
  select 'txn_' || encode(
    overlay(uuid_send(gen_random_uuid()) placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 'hex')
$$;

-- Posts one transaction, or finds that it was posted before. The refusals come in the order of the enum LedgerRefusal.
-- Errors: TM001 key reused with other content, TM002 account unknown, TM003 currency mismatch, TM004 not balanced,
-- TM005 amount overflow, TM006 insufficient balance.
create or replace function post_transaction(
  p_type text, p_key text, p_effective_at timestamptz, p_description text, p_details jsonb,
  p_accounts text[], p_amounts bigint[], p_currencies text[],
  out transaction_id text, out already_posted boolean)
language plpgsql as $$
declare
  v_hash bytea;
  v_posted_hash bytea;
  v_position bigint;
  v_name text;
  v_balance numeric;
begin
  select sha256(convert_to(p_type || string_agg(format(E'\n%s %s %s', account, amount, currency), '' order by account, amount, currency), 'UTF8'))
    into v_hash from unnest(p_accounts, p_amounts, p_currencies) as e(account, amount, currency);
  perform lock_ledger_accounts(p_accounts);

  select t.id, t.content_hash into transaction_id, v_posted_hash from ledger_transaction t where t.idempotency_key = p_key;
  if transaction_id is null then
    select e.account into v_name from unnest(p_accounts) as e(account)
      where not exists (select from ledger_account a where a.name = e.account) order by 1 limit 1;
    if found then
      raise exception 'the ledger has no account %', v_name using errcode = 'TM002';
    end if;

    select e.account into v_name
      from unnest(p_accounts, p_currencies) as e(account, currency) join ledger_account a on a.name = e.account
      where a.currency <> e.currency order by 1 limit 1;
    if found then
      raise exception 'an entry of % is not in the currency of the ledger account', v_name using errcode = 'TM003';
    end if;

    if cardinality(p_accounts) < 2 or 0 = any (p_amounts) or (select sum(amount) from unnest(p_amounts) as e(amount)) <> 0 then
      raise exception 'the entries do not balance: % accounts, sum % nanos', cardinality(p_accounts),
        (select sum(amount) from unnest(p_amounts) as e(amount)) using errcode = 'TM004';
    end if;

    select a.name into v_name
      from (select account, sum(amount) as amount from unnest(p_accounts, p_amounts) as e(account, amount) group by account) d
      join ledger_account a on a.name = d.account
      join ledger_balance b on b.ledger_account = a.id and b.shard = pg_backend_pid() % a.shards
      where b.amount_nanos + d.amount not between -9223372036854775807 and 9223372036854775807 order by 1 limit 1;
    if found then
      raise exception 'the balance of % would not fit 64 bits of nano-dollars', v_name using errcode = 'TM005';
    end if;

    select a.account, b.amount_nanos + d.amount into v_name, v_balance
      from (select account, sum(amount) as amount from unnest(p_accounts, p_amounts) as e(account, amount) group by account) d
      join ledger_account a on a.name = d.account
      join ledger_balance b on b.ledger_account = a.id and b.shard = pg_backend_pid() % a.shards
      where not b.may_be_negative and b.amount_nanos + d.amount < 0 order by 1 limit 1;
    if found then
      raise exception 'account % would be % nanos below zero', v_name, -v_balance using errcode = 'TM006';
    end if;

    insert into ledger_transaction (id, type, idempotency_key, content_hash, effective_at, description, details)
      values (new_transaction_id(), p_type, p_key, v_hash, coalesce(p_effective_at, clock_timestamp()), p_description, p_details)
      on conflict (idempotency_key) do nothing
      returning position, id into v_position, transaction_id;
    if not found then
      -- The key was posted meanwhile for other accounts, which our locks do not cover.
      select t.id, t.content_hash into transaction_id, v_posted_hash from ledger_transaction t where t.idempotency_key = p_key;
    end if;
  end if;

  if v_posted_hash is not null then
    if v_posted_hash <> v_hash then
      raise exception 'the key % was posted before with other content, as %', p_key, transaction_id using errcode = 'TM001';
    end if;
    already_posted := true;
    return;
  end if;

  insert into ledger_entry (transaction_position, ordinal, ledger_account, amount_nanos, currency)
    select v_position, e.ordinal, a.id, e.amount, e.currency
    from unnest(p_accounts, p_amounts, p_currencies) with ordinality as e(account, amount, currency, ordinal)
    join ledger_account a on a.name = e.account;

  update ledger_balance b set amount_nanos = b.amount_nanos + d.amount
    from (select a.id, a.shards, sum(e.amount) as amount
          from unnest(p_accounts, p_amounts) as e(account, amount) join ledger_account a on a.name = e.account group by a.id, a.shards) d
    where b.ledger_account = d.id and b.shard = pg_backend_pid() % d.shards;

  -- A settlement changes neither what an account can spend nor when it runs out, so it wakes nobody: otherwise every
  -- settlement would wake every deployment, and commits would queue behind the lock that NOTIFY takes.
  if p_type <> 'GpuUsage' then
    perform pg_notify('tensormesh_standing', a.account)
      from ledger_account a where a.name = any (p_accounts) and a.account is not null;
  end if;
  already_posted := false;
end $$;
