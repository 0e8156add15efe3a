-- A ledger transaction is one row, with its entries in it. Three rows, each with indexes of its own, and two triggers that put them
-- together again to see whether they balance cost three times what one row does, and most of what a post costs is that. In one row no
-- entry can be missing, come later or belong to nothing, and what the ledger promises of a transaction is looked at where it is
-- written: once. The view ledger_entry (views.sql) shows the entries as rows.

drop view if exists v_trial_balance, v_ledger_balance_rebuilt, v_transaction;
drop function if exists try_post, post_transaction, post_in_bulk, post_transactions, explain_refusal;

alter table ledger_transaction rename to ledger_transaction_of_rows;
alter table ledger_transaction_of_rows rename constraint ledger_transaction_pkey to ledger_transaction_of_rows_pkey;
alter table ledger_transaction_of_rows rename constraint ledger_transaction_id_key to ledger_transaction_of_rows_id_key;
alter table ledger_transaction_of_rows rename constraint ledger_transaction_idempotency_key_key to ledger_transaction_of_rows_key;

create table ledger_transaction (
  position         bigint generated always as identity primary key,
  -- Names that programs make up are compared byte by byte, whatever language the database speaks.
  id               text collate "C" not null unique,
  type             text not null,
  idempotency_key  text collate "C" not null unique,
  effective_at     timestamptz not null,
  created_at       timestamptz not null default clock_timestamp(),
  description      text not null,
  details          jsonb not null default '{}',
  -- Entry i moves amounts[i] nanos of the currency on the ledger account accounts[i]. In the order of the accounts' names, then of the
  -- amounts: the same entries are then the same arrays, whatever order they were given in.
  currency         text not null,
  accounts         bigint[] not null,
  amounts          bigint[] not null,
  -- The customer whose money it is about; null where there is none. Set by the trigger.
  customer         bigint
);

insert into ledger_transaction (position, id, type, idempotency_key, effective_at, created_at, description, details, currency, accounts, amounts, customer)
overriding system value
select t.position, t.id, t.type, t.idempotency_key, t.effective_at, t.created_at, t.description, t.details, e.currency, e.accounts, e.amounts, e.customer
from ledger_transaction_of_rows t cross join lateral (
  select min(e.currency) as currency, array_agg(e.ledger_account order by a.name, e.amount_nanos) as accounts,
    array_agg(e.amount_nanos order by a.name, e.amount_nanos) as amounts, max(a.id) filter (where a.account is not null) as customer
  from ledger_entry e join ledger_account a on a.id = e.ledger_account where e.transaction_position = t.position) e
order by t.position;
select setval(pg_get_serial_sequence('ledger_transaction', 'position'), coalesce((select max(position) from ledger_transaction), 0) + 1, false);

drop table ledger_entry, ledger_transaction_of_rows;
drop function refuse_unsound_entries, refuse_without_entries;
create index ledger_transaction_by_customer on ledger_transaction (customer, position desc) where customer is not null;

-- Accounts are append only: what is there when it is looked for stays there, and needs neither a lock nor a foreign key, which locks the
-- one row of an account that every post names. An account at a time, by its primary key, is what Postgres does fastest here.
create function refuse_unsound_transaction() returns trigger language plpgsql as $$
declare
  v_currency text; v_is_customer boolean;
  v_sum numeric := 0;
  v_missing bigint; v_foreign bigint;
  v_empty boolean := false;
  v_customer bigint; v_customers int := 0;
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
  new.customer := v_customer;
  return new;
end $$;

create trigger is_sound before insert on ledger_transaction for each row execute function refuse_unsound_transaction();
create trigger append_only before update or delete or truncate on ledger_transaction for each statement execute function refuse_change();

-- A balance is kept, and locked, where something can be refused for want of it: of customers. What our own accounts come to is summed from
-- the entries. Every post used to change a row of theirs as well, in one of up to 64 copies so that posts did not wait for each other.
alter table ledger_balance drop constraint ledger_balance_not_below_zero;
delete from ledger_balance where may_be_negative;
alter table ledger_balance drop column shard, drop column may_be_negative;
alter table ledger_balance
  add primary key (ledger_account),
  add constraint ledger_balance_not_below_zero check (amount_nanos >= 0),
  -- Room for the next version of a row beside it: a post then changes no index of this table.
  set (fillfactor = 50);
alter table ledger_account drop column shards;
