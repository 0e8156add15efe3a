-- What takes something back names what it takes back, nothing is posted outside the list of movements, and what is posted is sealed by a
-- chain of hashes, so that whoever goes round the triggers is found.

-- What customers owe us: money that a card company took back after it was spent.
alter table ledger_account drop constraint ledger_account_name_check;
alter table ledger_account add constraint ledger_account_name_check check (name ~ '^(customer|revenue|cash|expense|receivable):.+$');
insert into ledger_account (name) values ('expense:adjustments'), ('expense:write_offs'), ('receivable:disputes');

-- The position of what a transaction takes back, whole or in part. Set by the trigger, from its details.
alter table ledger_transaction add column corrects bigint;
create index ledger_transaction_by_corrected on ledger_transaction (corrects) where corrects is not null;

-- As in 0007, and then: the type is one of the list, and what takes something back does so soundly. Both ask functions that are installed
-- again when their text changes (movement_types, correction_problem), so that a new movement is one line there.
create or replace function refuse_unsound_transaction() returns trigger language plpgsql as $$
declare
  v_currency text; v_is_customer boolean;
  v_sum numeric := 0;
  v_missing bigint; v_foreign bigint;
  v_empty boolean := false;
  v_customer bigint; v_customers int := 0;
  v_problem text;
begin
  -- Not check constraints: Postgres reads the text of those again for every statement.
  if new.idempotency_key = '' or new.id not like 'txn\_%' then
    raise exception 'ledger transaction % needs an idempotency key, and an id that begins with txn_', new.id using errcode = 'check_violation';
  end if;

  for i in 1..cardinality(new.accounts) loop
    select a.currency, a.account is not null into v_currency, v_is_customer from ledger_account a where a.id = new.accounts[i];
    if not found then
      v_missing := coalesce(v_missing, new.accounts[i], 0);
      continue;
    end if;
    if v_currency <> new.currency then
      v_foreign := coalesce(v_foreign, new.accounts[i]);
    end if;
    if v_is_customer and v_customer is distinct from new.accounts[i] then
      v_customer := new.accounts[i];
      v_customers := v_customers + 1;
    end if;
    v_empty := v_empty or new.amounts[i] is null or new.amounts[i] = 0;
    v_sum := v_sum + coalesce(new.amounts[i], 0);
  end loop;

  if v_missing is not null then
    raise exception 'ledger transaction % has an entry of an account that the ledger does not have: %', new.id, v_missing
      using errcode = 'TM002';
  end if;
  if v_foreign is not null then
    raise exception 'ledger transaction % is in %, which is not the currency of the account %', new.id, new.currency, v_foreign
      using errcode = 'TM003';
  end if;
  if v_sum <> 0 or v_empty or cardinality(new.accounts) < 2 or cardinality(new.amounts) <> cardinality(new.accounts)
      or array_upper(new.accounts, 1) <> cardinality(new.accounts) or array_upper(new.amounts, 1) <> cardinality(new.amounts) then
    raise exception 'ledger transaction % is not balanced: % entries with % amounts that sum to % nanos', new.id,
      cardinality(new.accounts), cardinality(new.amounts), v_sum using errcode = 'TM004';
  end if;
  if v_customers > 1 then
    raise exception 'ledger transaction % is about more than one customer', new.id
      using errcode = 'TM009', hint = 'Let it go through an account of our own: one transaction for each customer.';
  end if;
  if new.type <> all (movement_types()) then
    raise exception 'ledger transaction % is of no type that money moves by: %', new.id, new.type
      using errcode = 'check_violation', hint = 'movement_types() lists them.';
  end if;
  if new.type = any (correcting_types()) then
    v_problem := correction_problem(new.type, new.idempotency_key, new.details, new.accounts, new.amounts);
    if v_problem is not null then
      raise exception '%', v_problem using errcode = 'TM010';
    end if;
    new.corrects := (select t.position from ledger_transaction t where t.id = new.details ->> 'transaction');
  end if;
  new.customer := v_customer;
  return new;
end $$;

-- What is left of a grant when it expires is taken back; of most grants nothing is, and then nothing can be posted. Either way it is done.
create index ledger_transaction_by_expiry on ledger_transaction (position) where type = 'CreditGrant' and details ? 'expiresAt';
create table expired_grant (
  grant_position  bigint primary key,
  expired_nanos   bigint not null check (expired_nanos >= 0),
  decided_at      timestamptz not null default clock_timestamp()
);
create trigger append_only before update or delete or truncate on expired_grant for each statement execute function refuse_change();

-- A seal covers every position from the one after the seal before it to its own, and is made once none of them can still be written. It
-- is made after the fact, by one prover at a time, so that no post waits for another because of it.
create table ledger_seal (
  to_position    bigint primary key check (to_position >= from_position),
  from_position  bigint not null unique check (from_position >= 1),
  -- The transactions that it covers, in order, and the hash of each, 32 bytes of SHA-256: over its content and the hash before it.
  positions      bigint[] not null check (cardinality(positions) between 1 and 1000 and positions[cardinality(positions)] = to_position),
  hashes         bytea not null check (length(hashes) = 32 * cardinality(positions)),
  -- The last of them, and the last one of the seal before: a chain has no forks.
  hash           bytea not null check (hash = substring(hashes from length(hashes) - 31)),
  previous_hash  bytea not null unique check (length(previous_hash) = 32),
  sealed_at      timestamptz not null default clock_timestamp()
);
alter table ledger_seal alter column hashes set storage external;
create trigger append_only before update or delete or truncate on ledger_seal for each statement execute function refuse_change();
