-- The one way into the ledger. Called in one round trip; several calls may share one SQL transaction, whose first
-- statement then locks every account that it will touch (lock_ledger_accounts), so that locks are always taken in order.

-- Locks the balances of the customers among the named ledger accounts, in the order of their names; what is ours has none. A lock on a row
-- that does not exist locks nothing, and two first uses would both pass: missing rows are therefore created before anything is locked.
-- Before, because whoever holds a customer while waiting for a row that sorts ahead of it meets another who holds that row and waits for the customer.
-- Every name is found by a unique key: planned once for each connection, and never as a scan of what was small then.
create or replace function lock_ledger_accounts(p_names text[]) returns void language plpgsql
  set plan_cache_mode = force_generic_plan set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  if exists (
      select from unnest(p_names) as n(name) left join ledger_account a on a.name = n.name
        left join ledger_balance b on b.ledger_account = a.id
      where case when n.name like 'customer:%' then a.id is not null and b.ledger_account is null else a.id is null end) then
    -- The cash account of a payment company opens with its first payment; a customer's only by being declared.
    insert into ledger_account (name)
      select distinct n.name from unnest(p_names) as n(name)
      where n.name like 'cash:%' and not exists (select from ledger_account a where a.name = n.name) order by 1
      on conflict (name) do nothing;
    insert into ledger_balance (ledger_account)
      select a.id from ledger_account a where a.name = any (p_names) and a.account is not null order by a.name
      on conflict do nothing;
  end if;
  perform 1
    from ledger_account a join ledger_balance b on b.ledger_account = a.id
    where a.name = any (p_names) order by a.name for update of b;
end $$;

-- Every way that money moves: the enum MovementType, by name. The trigger of ledger_transaction refuses any other.
create or replace function movement_types() returns text[] language sql immutable as $$
  select array[
    'TopUp', 'CreditGrant', 'GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit', 'ServerlessUsage', 'Uncollected',
    'Refund', 'Dispute', 'DisputeReversal', 'WriteOff', 'Adjustment', 'CreditExpiry', 'Reversal']
$$;

-- Those that take something back: their details name the transaction.
create or replace function correcting_types() returns text[] language sql immutable as $$
  select array['Refund', 'Dispute', 'DisputeReversal', 'WriteOff', 'CreditExpiry', 'Reversal']
$$;

-- Why a movement cannot take back what it names; null: it can. It has not been posted under another key, and not more than there is left.
-- What a run was charged is corrected by the run's own movements only: its running total would not know of any other.
create or replace function correction_problem(p_type text, p_key text, p_details jsonb, p_accounts bigint[], p_amounts bigint[])
returns text language plpgsql as $$
declare
  t ledger_transaction;
  v_standing text;
  v_account bigint;
  v_amount numeric;
  v_left numeric;
begin
  select * into t from ledger_transaction where id = p_details ->> 'transaction';
  if not found then
    return format('%s takes back a transaction that the ledger does not have: %s', p_key, p_details ->> 'transaction');
  end if;
  -- Two that take back the same come one after the other, whether or not they touch a customer.
  perform pg_advisory_xact_lock(hashtext('tensormesh.corrects'), hashtext(t.id));
  -- What takes it back already, and was not taken back itself.
  select min(c.id) into v_standing from ledger_transaction c where c.corrects = t.position and c.idempotency_key <> p_key
    and not exists (select from ledger_transaction r where r.corrects = c.position and r.type in ('Reversal', 'DisputeReversal'));
  if exists (
      select from unnest(p_accounts) as e(account) join ledger_account a on a.id = e.account
      where a.account is not null and a.id is distinct from t.customer and t.customer is not null) then
    return format('%s is about another customer than %s', p_key, t.id);
  end if;

  if p_type in ('Reversal', 'DisputeReversal') then
    if t.type in ('Reversal', 'DisputeReversal') then
      return format('%s is a reversal, which is not reversed: post what it took back anew', t.id);
    elsif t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit', 'Uncollected') then
      return format('%s is about a run, whose total it would belie: post an adjustment', t.id);
    elsif t.type = 'ServerlessUsage' then
      return format('%s is about metered tokens, whose total it would belie: post an adjustment', t.id);
    elsif p_type = 'DisputeReversal' and t.type <> 'Dispute' then
      return format('%s is no dispute', t.id);
    elsif v_standing is not null then
      return format('%s was taken back, whole or in part, by %s', t.id, v_standing);
    elsif p_accounts <> t.accounts or p_amounts <> (select array_agg(-e.amount order by e.place) from unnest(t.amounts) with ordinality as e(amount, place)) then
      return format('%s is not the mirror of %s', p_key, t.id);
    end if;
    return null;
  end if;

  if (p_type, t.type) not in (('Refund', 'TopUp'), ('Dispute', 'TopUp'), ('WriteOff', 'Dispute'), ('CreditExpiry', 'CreditGrant')) then
    return format('%s is a %s, of which there is no %s', t.id, t.type, p_type);
  elsif p_type = 'CreditExpiry' and not t.details ? 'expiresAt' then
    return format('%s does not expire', t.id);
  end if;
  -- The account that gave, or is owed, and gets it back: ours, which comes out negative in what is taken back.
  select e.account, -e.amount into v_account, v_left from unnest(t.accounts, t.amounts) as e(account, amount)
    join ledger_account a on a.id = e.account where a.account is null and e.amount < 0;
  select coalesce(sum(e.amount), 0) into v_amount from unnest(p_accounts, p_amounts) as e(account, amount) where e.account = v_account;
  select v_left - coalesce(sum(e.amount), 0) into v_left
    from ledger_transaction c cross join lateral unnest(c.accounts, c.amounts) as e(account, amount)
    where c.corrects = t.position and c.idempotency_key <> p_key and e.account = v_account
      and not exists (select from ledger_transaction r where r.corrects = c.position and r.type in ('Reversal', 'DisputeReversal'));
  if v_left is null or v_amount <= 0 or v_amount > v_left then
    return format('%s takes back %s nanos of %s, of which %s are left', p_key, v_amount, t.id, coalesce(v_left, 0));
  end if;
  return null;
end $$;

-- Sortable by time, as a version 7 UUID is.
create or replace function new_transaction_id() returns text language sql volatile as $$
  select 'txn_' || encode(
    overlay(uuid_send(gen_random_uuid()) placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 'hex')
$$;

-- Posts one transaction, finds that it was posted before, or says why not; a refusal has written nothing. The refusals come
-- in the order of the enum LedgerRefusal: TM001 key reused with other content, TM002 account unknown, TM003 currency mismatch,
-- TM004 not balanced, TM005 amount overflow, TM006 insufficient balance, TM010 it takes back what it cannot.
--
-- Every post to an account waits for the one before it, so this takes the road that Postgres executes fastest: few statements,
-- each for one row by a unique key. What is refused takes the long way: it is put back, and looked at again.
--
-- Nobody is notified here: commits with a NOTIFY queue behind one lock of the whole server until they are on disk, and no two
-- of them would share a flush. The caller notifies after the commit.
create or replace function try_post(
  p_type text, p_key text, p_effective_at timestamptz, p_description text, p_details jsonb,
  p_accounts text[], p_amounts bigint[], p_currencies text[],
  out transaction_id text, out already_posted boolean, out refusal text, out message text)
language plpgsql as $$
declare
  v_entries int := cardinality(p_accounts);
  v_sum numeric := 0;
  v_fine boolean := v_entries >= 2;
  v_id bigint;
  v_ids bigint[];
  v_problem text;
begin
  -- Locks are taken in the order of the names, and the same entries are stored in one order.
  for i in 2..v_entries loop
    if p_accounts[i - 1] collate "C" > p_accounts[i] or (p_accounts[i - 1] = p_accounts[i] and p_amounts[i - 1] > p_amounts[i]) then
      select array_agg(account order by account collate "C", amount), array_agg(amount order by account collate "C", amount),
          array_agg(currency order by account collate "C", amount)
        into p_accounts, p_amounts, p_currencies from unnest(p_accounts, p_amounts, p_currencies) as e(account, amount, currency);
      exit;
    end if;
  end loop;
  for i in 1..v_entries loop
    v_sum := v_sum + p_amounts[i];
    v_fine := v_fine and p_amounts[i] <> 0 and p_currencies[i] = p_currencies[1];
  end loop;
  v_fine := v_fine and v_sum = 0;

  for i in 1..v_entries loop
    exit when not v_fine;
    if starts_with(p_accounts[i], 'customer:') then
      update ledger_balance b set amount_nanos = b.amount_nanos + p_amounts[i] from ledger_account a
        where a.name = p_accounts[i] and a.currency = p_currencies[i] and b.ledger_account = a.id
          and b.amount_nanos >= -p_amounts[i] and b.amount_nanos <= 9223372036854775807 - greatest(p_amounts[i], 0)
        returning b.ledger_account into v_id;
    else
      select a.id into v_id from ledger_account a where a.name = p_accounts[i] and a.currency = p_currencies[i];
    end if;
    v_fine := found;
    v_ids := v_ids || v_id;
  end loop;
  if v_fine and p_type = any (correcting_types()) then
    v_problem := correction_problem(p_type, p_key, p_details, v_ids, p_amounts);
    v_fine := v_problem is null;
  end if;

  if v_fine then
    insert into ledger_transaction (id, type, idempotency_key, effective_at, description, details, currency, accounts, amounts)
      values (new_transaction_id(), p_type, p_key, coalesce(p_effective_at, clock_timestamp()), p_description, p_details,
        p_currencies[1], v_ids, p_amounts)
      on conflict (idempotency_key) do nothing
      returning id into transaction_id;
    if found then
      already_posted := false;
      return;
    end if;
  end if;

  for i in 1..coalesce(cardinality(v_ids), 0) loop
    update ledger_balance b set amount_nanos = b.amount_nanos - p_amounts[i] where b.ledger_account = v_ids[i];
  end loop;
  select t.transaction_id, t.already_posted, t.refusal, t.message into transaction_id, already_posted, refusal, message
    from explain_refusal(p_type, p_key, p_accounts, p_amounts, p_currencies) t;
  if refusal is null and transaction_id is null and v_problem is not null then
    refusal := 'TM010';
    message := v_problem;
  elsif refusal is null and transaction_id is null then
    -- All that was missing was a balance row, which is there now.
    select t.transaction_id, t.already_posted, t.refusal, t.message into transaction_id, already_posted, refusal, message
      from try_post(p_type, p_key, p_effective_at, p_description, p_details, p_accounts, p_amounts, p_currencies) t;
  end if;
end $$;

-- Why a transaction cannot be written, or that it was before. Nothing: it can be, now that every balance row is there. The entries come
-- in the order in which they are stored.
create or replace function explain_refusal(
  p_type text, p_key text, p_accounts text[], p_amounts bigint[], p_currencies text[],
  out transaction_id text, out already_posted boolean, out refusal text, out message text)
language plpgsql as $$
declare
  v_same boolean;
  v_name text;
  v_short numeric;
begin
  perform lock_ledger_accounts(p_accounts);
  -- Only type and entries are compared: a retry may carry a fresh time or wording and is still the same transaction.
  select t.id, t.type = p_type and t.amounts = p_amounts and t.currency = all (p_currencies) and t.accounts = (
      select array_agg(a.id order by e.place) from unnest(p_accounts) with ordinality as e(account, place)
      left join ledger_account a on a.name = e.account)
    into transaction_id, v_same from ledger_transaction t where t.idempotency_key = p_key;
  if found and v_same then
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
    where a.currency <> e.currency or e.currency <> p_currencies[1] order by 1 limit 1;
  if found then
    refusal := 'TM003';
    message := format('an entry of %s is not in the currency of the ledger account, or of the others', v_name);
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
      join ledger_balance b on b.ledger_account = a.id) e
    where e.balance > 9223372036854775807 order by 1 limit 1;
  if found then
    refusal := 'TM005';
    message := format('the balance of %s would not fit 64 bits of nano-dollars', v_name);
    return;
  end if;

  select e.customer, -e.balance into v_name, v_short from (
      select a.account as customer, b.amount_nanos + sum(e.amount) over (partition by e.account order by e.ordinal) as balance
      from unnest(p_accounts, p_amounts) with ordinality as e(account, amount, ordinal) join ledger_account a on a.name = e.account
      join ledger_balance b on b.ledger_account = a.id) e
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

-- Writes movements none of which could be refused, in whatever order, and gives the id of each, or null where its key is there already; null
-- for all, and nothing written, where one could be refused. Batches wait for each other from the first lock to the commit: what can be
-- found out before it is.
--
-- The number of rows decides how to join them, and it differs from call to call: so these statements are planned for each call (execute), and
-- nothing else is. Setting plan_cache_mode here would have the trigger's statements planned anew for every row as well.
create or replace function post_in_bulk(
  p_types text[], p_keys text[], p_effective_at timestamptz[], p_descriptions text[], p_details jsonb[],
  p_movements int[], p_accounts text[], p_amounts bigint[], p_currencies text[])
returns text[] language plpgsql as $$
declare
  v_fine boolean;
  -- Of each movement: its entries in the order in which they are stored, as texts, because arrays of an array are of one length.
  v_currencies text[]; v_accounts text[]; v_amounts text[];
  -- Of each customer, in the order of names: what comes out and what goes in.
  v_customers bigint[]; v_less numeric[]; v_more numeric[];
  v_keys text[]; v_ids text[];
begin
  if p_types && correcting_types() then
    return null;
  end if;
  execute $q$
    select bool_and(m.fine) and count(*) = cardinality($1) and (select count(distinct k.key) = cardinality($1) from unnest($1) as k(key)),
      array_agg(m.currency order by m.movement), array_agg(m.accounts::text order by m.movement), array_agg(m.amounts::text order by m.movement)
    from (
      select e.movement, min(e.currency) as currency,
        count(*) >= 2 and sum(e.amount) = 0 and bool_and(a.id is not null and e.amount <> 0 and e.currency = a.currency) as fine,
        array_agg(a.id order by e.account collate "C", e.amount) as accounts,
        array_agg(e.amount order by e.account collate "C", e.amount) as amounts
      from unnest($2, $3, $4, $5) as e(movement, account, amount, currency) left join ledger_account a on a.name = e.account
      group by e.movement) m
    $q$ into v_fine, v_currencies, v_accounts, v_amounts using p_keys, p_movements, p_accounts, p_amounts, p_currencies;
  if v_fine is not true then
    return null;
  end if;
  execute $q$
    select bool_and(b.ledger_account is not null), array_agg(d.id order by d.name), array_agg(d.less order by d.name), array_agg(d.more order by d.name)
    from (
      select a.id, a.name,
        coalesce(sum(e.amount) filter (where e.amount < 0), 0) as less, coalesce(sum(e.amount) filter (where e.amount > 0), 0) as more
      from unnest($1, $2) as e(account, amount) join ledger_account a on a.name = e.account where a.account is not null group by a.id) d
    left join ledger_balance b on b.ledger_account = d.id
    $q$ into v_fine, v_customers, v_less, v_more using p_accounts, p_amounts;
  if v_fine is false then
    return null;
  end if;

  -- As if all that comes out of a customer came before all that goes in, and the reverse: no order can do worse.
  execute $q$
    select bool_and(l.balance + l.less >= 0 and l.balance + l.more <= 9223372036854775807) from (
      select b.amount_nanos as balance, d.less, d.more
      from unnest($1, $2, $3) with ordinality as d(id, less, more, place) join ledger_balance b on b.ledger_account = d.id
      order by d.place for update of b) l
    $q$ into v_fine using v_customers, v_less, v_more;
  if v_fine is false then
    return null;
  end if;

  execute $q$
    with posted as (
      insert into ledger_transaction (id, type, idempotency_key, effective_at, description, details, currency, accounts, amounts)
      select new_transaction_id(), k.type, k.key, coalesce(k.effective_at, clock_timestamp()), k.description, k.details,
        k.currency, k.accounts::bigint[], k.amounts::bigint[]
      from unnest($1, $2, $3, $4, $5, $6, $7, $8) with ordinality
        as k(type, key, effective_at, description, details, currency, accounts, amounts, place)
      order by k.place
      on conflict (idempotency_key) do nothing
      returning id, idempotency_key, position)
    select array_agg(p.idempotency_key order by p.position), array_agg(p.id order by p.position) from posted p
    $q$ into v_keys, v_ids
    using p_types, p_keys, p_effective_at, p_descriptions, p_details, v_currencies, v_accounts, v_amounts;
  if cardinality(v_ids) = cardinality(p_keys) then
    execute 'update ledger_balance b set amount_nanos = b.amount_nanos + d.less + d.more from unnest($1, $2, $3) as d(id, less, more)
      where b.ledger_account = d.id' using v_customers, v_less, v_more;
    return v_ids;
  end if;
  update ledger_balance b set amount_nanos = b.amount_nanos + d.amount
    from (
      select e.account, sum(e.amount) as amount from ledger_transaction t cross join lateral unnest(t.accounts, t.amounts) as e(account, amount)
      where t.id = any (v_ids) group by e.account) d
    where b.ledger_account = d.account;
  return (
    select array_agg(p.id order by k.place) from unnest(p_keys) with ordinality as k(key, place)
    left join unnest(v_keys, v_ids) as p(key, id) on p.key = k.key);
end $$;

-- Posts many in one SQL transaction, with the results that try_post would give to one after the other. p_movements numbers
-- from 1 the movement that each entry belongs to, and never falls. Planning the statements for all of them at once takes as long as
-- posting some twenty one by one.
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
  if cardinality(p_keys) > 24 then
    v_ids := post_in_bulk(p_types, p_keys, p_effective_at, p_descriptions, p_details, p_movements, p_accounts, p_amounts, p_currencies);
    if array_position(v_ids, null) is null and cardinality(v_ids) > 0 then
      return query select v.place::int, v.id, false, null::text, null::text from unnest(v_ids) with ordinality as v(id, place);
      return;
    end if;
  end if;

  perform lock_ledger_accounts(p_accounts);
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
