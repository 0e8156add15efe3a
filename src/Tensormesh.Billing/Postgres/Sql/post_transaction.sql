-- The one way into the ledger. Called in one round trip; several calls may share one SQL transaction, whose first
-- statement then locks every account that it will touch (lock_ledger_accounts), so that locks are always taken in order.

-- Locks the balances of the named ledger accounts in the order of their names. A lock on a row that does not exist locks
-- nothing, and two first uses would both pass: missing rows are therefore created before anything is locked. Before, because
-- whoever holds a customer while waiting for a row that sorts ahead of it meets another who holds that row and waits for the customer.
-- Every name is found by a unique key: planned once for each connection, and never as a scan of what was small then.
create or replace function lock_ledger_accounts(p_names text[]) returns void language plpgsql
  set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_wanted int := (select count(distinct name) from unnest(p_names) as n(name));
  v_there int;
begin
  select count(*) into v_there
    from ledger_account a join ledger_balance b on b.ledger_account = a.id and b.shard = pg_backend_pid() % a.shards
    where a.name = any (p_names);
  if v_there < v_wanted then
    -- The cash account of a payment company opens with its first payment; a customer's only by being declared.
    insert into ledger_account (name, shards)
      select distinct n.name, 64 from unnest(p_names) as n(name)
      where n.name like 'cash:%' and not exists (select from ledger_account a where a.name = n.name) order by 1
      on conflict (name) do nothing;
    insert into ledger_balance (ledger_account, shard, may_be_negative)
      select a.id, pg_backend_pid() % a.shards, a.account is null from ledger_account a where a.name = any (p_names) order by a.name
      on conflict do nothing;
  end if;
  perform 1
    from ledger_account a join ledger_balance b on b.ledger_account = a.id and b.shard = pg_backend_pid() % a.shards
    where a.name = any (p_names) order by a.name for update of b;
end $$;

-- Sortable by time, as a version 7 UUID is.
create or replace function new_transaction_id() returns text language sql volatile as $$
  select 'txn_' || encode(
    overlay(uuid_send(gen_random_uuid()) placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 'hex')
$$;

-- Posts one transaction, finds that it was posted before, or says why not; a refusal has written nothing. The refusals come
-- in the order of the enum LedgerRefusal: TM001 key reused with other content, TM002 account unknown, TM003 currency mismatch,
-- TM004 not balanced, TM005 amount overflow, TM006 insufficient balance.
--
-- Every post to an account waits for the one before it, so this takes the road that Postgres executes fastest: few statements,
-- each for one row by a unique key. Statements over all entries at once are planned anew at every call, or planned once for
-- tables that look small and then read whole. What is refused takes the long way: it is put back, and looked at again.
--
-- Nobody is notified here: commits with a NOTIFY queue behind one lock of the whole server until they are on disk, and no two
-- of them would share a flush. The caller notifies after the commit.
create or replace function try_post(
  p_type text, p_key text, p_effective_at timestamptz, p_description text, p_details jsonb,
  p_accounts text[], p_amounts bigint[], p_currencies text[],
  out transaction_id text, out already_posted boolean, out refusal text, out message text)
language plpgsql as $$
declare
  v_content text := p_type;
  v_hash bytea;
  v_entries int := cardinality(p_accounts);
  v_sum numeric := 0;
  v_fine boolean := true;
  v_id bigint; v_shard int; v_currency text;
  v_ids bigint[]; v_shards int[];
begin
  -- Locks are taken in the order of the names, and what the hash covers has one order.
  for i in 2..v_entries loop
    if (p_accounts[i - 1], p_amounts[i - 1], p_currencies[i - 1]) > (p_accounts[i], p_amounts[i], p_currencies[i]) then
      select array_agg(account order by account, amount, currency), array_agg(amount order by account, amount, currency),
          array_agg(currency order by account, amount, currency)
        into p_accounts, p_amounts, p_currencies from unnest(p_accounts, p_amounts, p_currencies) as e(account, amount, currency);
      exit;
    end if;
  end loop;
  for i in 1..v_entries loop
    v_content := v_content || E'\n' || p_accounts[i] || ' ' || p_amounts[i] || ' ' || p_currencies[i];
    v_sum := v_sum + p_amounts[i];
    v_fine := v_fine and p_amounts[i] <> 0;
  end loop;
  v_hash := sha256(convert_to(v_content, 'UTF8'));
  v_fine := v_fine and v_entries >= 2 and v_sum = 0;

  for i in 1..v_entries loop
    exit when not v_fine;
    update ledger_balance b set amount_nanos = b.amount_nanos + p_amounts[i] from ledger_account a
      where a.name = p_accounts[i] and a.currency = p_currencies[i] and b.ledger_account = a.id and b.shard = pg_backend_pid() % a.shards
        and b.amount_nanos <= 9223372036854775807 - greatest(p_amounts[i], 0)
        and b.amount_nanos >= case when b.may_be_negative then -9223372036854775807 - least(p_amounts[i], 0) else -p_amounts[i] end
      returning b.ledger_account, b.shard into v_id, v_shard;
    v_fine := found;
    v_ids := v_ids || v_id;
    v_shards := v_shards || v_shard;
  end loop;

  if v_fine then
    with header as (
      insert into ledger_transaction (id, type, idempotency_key, content_hash, effective_at, description, details)
      values (new_transaction_id(), p_type, p_key, v_hash, coalesce(p_effective_at, clock_timestamp()), p_description, p_details)
      on conflict (idempotency_key) do nothing
      returning position, id
    ), written as (
      insert into ledger_entry (transaction_position, ordinal, ledger_account, amount_nanos, currency)
      select h.position, e.ordinal, e.id, e.amount, e.currency
      from header h, unnest(v_ids, p_amounts, p_currencies) with ordinality as e(id, amount, currency, ordinal)
    )
    select h.id into transaction_id from header h;
    if found then
      already_posted := false;
      return;
    end if;
  end if;

  for i in 1..coalesce(cardinality(v_ids), 0) loop
    update ledger_balance b set amount_nanos = b.amount_nanos - p_amounts[i] where b.ledger_account = v_ids[i] and b.shard = v_shards[i];
  end loop;
  select t.transaction_id, t.already_posted, t.refusal, t.message into transaction_id, already_posted, refusal, message
    from explain_refusal(p_key, v_hash, p_accounts, p_amounts, p_currencies) t;
  if refusal is null and transaction_id is null then
    -- All that was missing was a balance row, which is there now.
    select t.transaction_id, t.already_posted, t.refusal, t.message into transaction_id, already_posted, refusal, message
      from try_post(p_type, p_key, p_effective_at, p_description, p_details, p_accounts, p_amounts, p_currencies) t;
  end if;
end $$;

-- Why a transaction cannot be written, or that it was before. Nothing: it can be, now that every balance row is there.
create or replace function explain_refusal(
  p_key text, p_hash bytea, p_accounts text[], p_amounts bigint[], p_currencies text[],
  out transaction_id text, out already_posted boolean, out refusal text, out message text)
language plpgsql as $$
declare
  v_posted_hash bytea;
  v_name text;
  v_short numeric;
begin
  perform lock_ledger_accounts(p_accounts);
  select t.id, t.content_hash into transaction_id, v_posted_hash from ledger_transaction t where t.idempotency_key = p_key;
  if found and v_posted_hash = p_hash then
    already_posted := true;
    return;
  elsif found then
    refusal := 'TM001';
    message := format('the key %s was posted before with other content, as %s', p_key, transaction_id);
    transaction_id := null;
    return;
  end if;

  select e.account into v_name from unnest(p_accounts) as e(account)
    where not exists (select from ledger_account a where a.name = e.account) order by 1 limit 1;
  if found then
    refusal := 'TM002';
    message := format('the ledger has no account %s', v_name);
    return;
  end if;

  select e.account into v_name
    from unnest(p_accounts, p_currencies) as e(account, currency) join ledger_account a on a.name = e.account
    where a.currency <> e.currency order by 1 limit 1;
  if found then
    refusal := 'TM003';
    message := format('an entry of %s is not in the currency of the ledger account', v_name);
    return;
  end if;

  if cardinality(p_accounts) < 2 or 0 = any (p_amounts) or (select sum(amount) from unnest(p_amounts) as e(amount)) <> 0 then
    refusal := 'TM004';
    message := format('the entries do not balance: %s accounts, sum %s nanos', cardinality(p_accounts),
      (select sum(amount) from unnest(p_amounts) as e(amount)));
    return;
  end if;

  -- Entry by entry, as they are written: no balance may pass a bound on the way.
  select e.account into v_name from (
      select e.account, b.amount_nanos + sum(e.amount) over (partition by e.account order by e.ordinal) as balance
      from unnest(p_accounts, p_amounts) with ordinality as e(account, amount, ordinal) join ledger_account a on a.name = e.account
      join ledger_balance b on b.ledger_account = a.id and b.shard = pg_backend_pid() % a.shards) e
    where e.balance not between -9223372036854775807 and 9223372036854775807 order by 1 limit 1;
  if found then
    refusal := 'TM005';
    message := format('the balance of %s would not fit 64 bits of nano-dollars', v_name);
    return;
  end if;

  select e.customer, -e.balance into v_name, v_short from (
      select a.account as customer, b.amount_nanos + sum(e.amount) over (partition by e.account order by e.ordinal) as balance
      from unnest(p_accounts, p_amounts) with ordinality as e(account, amount, ordinal) join ledger_account a on a.name = e.account
      join ledger_balance b on b.ledger_account = a.id and b.shard = pg_backend_pid() % a.shards
      where not b.may_be_negative) e
    where e.balance < 0 order by 1, 2 desc limit 1;
  if found then
    refusal := 'TM006';
    message := format('account %s would be %s nanos below zero', v_name, v_short);
  end if;
end $$;

-- The same inside a larger SQL transaction, which a refusal must end.
create or replace function post_transaction(
  p_type text, p_key text, p_effective_at timestamptz, p_description text, p_details jsonb,
  p_accounts text[], p_amounts bigint[], p_currencies text[],
  out transaction_id text, out already_posted boolean)
language plpgsql as $$
declare
  v_refusal text;
  v_message text;
begin
  select t.transaction_id, t.already_posted, t.refusal, t.message into transaction_id, already_posted, v_refusal, v_message
    from try_post(p_type, p_key, p_effective_at, p_description, p_details, p_accounts, p_amounts, p_currencies) t;
  if v_refusal is not null then
    raise exception '%', v_message using errcode = v_refusal;
  end if;
end $$;

-- Writes movements none of which could be refused, in whatever order, with a few statements for all of them; null where that is
-- not so, and for each movement whose key is there already. The accounts are locked.
create or replace function post_in_bulk(
  p_types text[], p_keys text[], p_effective_at timestamptz[], p_descriptions text[], p_details jsonb[],
  p_movements int[], p_accounts text[], p_amounts bigint[], p_currencies text[])
returns text[]
-- Here the number of rows decides how to join them, and it differs from call to call.
language plpgsql set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
  v_suspect boolean;
  v_ids text[];
begin
  select exists (
      select from unnest(p_movements, p_amounts) as e(movement, amount)
      group by e.movement having count(*) < 2 or sum(e.amount) <> 0 or bool_or(e.amount = 0))
    or (select count(distinct e.movement) from unnest(p_movements) as e(movement)) <> cardinality(p_keys)
    or (select count(distinct k.key) from unnest(p_keys) as k(key)) <> cardinality(p_keys)
    or exists (
      -- As if all that comes out came before all that goes in, and the reverse: no order can do worse.
      select from (
        select e.account, e.currency,
          coalesce(sum(e.amount) filter (where e.amount < 0), 0) as less, coalesce(sum(e.amount) filter (where e.amount > 0), 0) as more
        from unnest(p_accounts, p_amounts, p_currencies) as e(account, amount, currency) group by e.account, e.currency) d
      left join ledger_account a on a.name = d.account and a.currency = d.currency
      left join ledger_balance b on b.ledger_account = a.id and b.shard = pg_backend_pid() % a.shards
      where b.ledger_account is null or b.amount_nanos + d.more > 9223372036854775807
        or b.amount_nanos + d.less < case when b.may_be_negative then -9223372036854775807 else 0 end)
    into v_suspect;
  if v_suspect then
    return null;
  end if;

  with entry as (
    select e.movement, e.amount, e.currency, a.id, pg_backend_pid() % a.shards as shard, e.account,
      row_number() over (partition by e.movement order by e.place) as ordinal
    from unnest(p_movements, p_accounts, p_amounts, p_currencies) with ordinality as e(movement, account, amount, currency, place)
    join ledger_account a on a.name = e.account
  ), content as (
    select movement, string_agg(E'\n' || account || ' ' || amount::text || ' ' || currency, '' order by account, amount, currency) as text
    from entry group by movement
  ), header as (
    insert into ledger_transaction (id, type, idempotency_key, content_hash, effective_at, description, details)
    select new_transaction_id(), m.type, m.key, sha256(convert_to(m.type || c.text, 'UTF8')),
      coalesce(m.effective_at, clock_timestamp()), m.description, m.details
    from unnest(p_types, p_keys, p_effective_at, p_descriptions, p_details) with ordinality
      as m(type, key, effective_at, description, details, movement)
    join content c on c.movement = m.movement order by m.movement
    on conflict (idempotency_key) do nothing
    returning position, id, idempotency_key
  ), posted as (
    select h.position, h.id, k.movement from header h join unnest(p_keys) with ordinality as k(key, movement) on k.key = h.idempotency_key
  ), written as (
    insert into ledger_entry (transaction_position, ordinal, ledger_account, amount_nanos, currency)
    select p.position, e.ordinal, e.id, e.amount, e.currency from posted p join entry e on e.movement = p.movement
  ), moved as (
    update ledger_balance b set amount_nanos = b.amount_nanos + d.amount
    from (select e.id, e.shard, sum(e.amount) as amount from posted p join entry e on e.movement = p.movement group by e.id, e.shard) d
    where b.ledger_account = d.id and b.shard = d.shard
  )
  select array_agg(p.id order by m.movement) into v_ids
    from generate_subscripts(p_keys, 1) as m(movement) left join posted p on p.movement = m.movement;
  return v_ids;
end $$;

-- Posts many in one SQL transaction, with the results that try_post would give to one after the other. p_movements numbers
-- from 1 the movement that each entry belongs to, and never falls. Planning the statements for all of them at once takes as long as
-- posting seven one by one.
create or replace function post_transactions(
  p_types text[], p_keys text[], p_effective_at timestamptz[], p_descriptions text[], p_details jsonb[],
  p_movements int[], p_accounts text[], p_amounts bigint[], p_currencies text[])
returns table (movement int, transaction_id text, already_posted boolean, refusal text, message text)
language plpgsql as $$
declare
  v_ids text[];
  v_from int := 1;
  v_to int;
begin
  perform lock_ledger_accounts(p_accounts);
  if cardinality(p_keys) > 7 then
    v_ids := post_in_bulk(p_types, p_keys, p_effective_at, p_descriptions, p_details, p_movements, p_accounts, p_amounts, p_currencies);
  end if;

  for i in 1..cardinality(p_keys) loop
    v_to := v_from;
    while p_movements[v_to] = i loop
      v_to := v_to + 1;
    end loop;
    movement := i;
    if v_ids[i] is not null then
      transaction_id := v_ids[i];
      already_posted := false;
      refusal := null;
      message := null;
    else
      select t.transaction_id, t.already_posted, t.refusal, t.message into transaction_id, already_posted, refusal, message
        from try_post(p_types[i], p_keys[i], p_effective_at[i], p_descriptions[i], p_details[i],
          p_accounts[v_from:v_to - 1], p_amounts[v_from:v_to - 1], p_currencies[v_from:v_to - 1]) t;
    end if;
    v_from := v_to;
    return next;
  end loop;
end $$;
