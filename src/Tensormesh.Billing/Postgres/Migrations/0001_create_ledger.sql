-- The double-entry ledger. Append only, and exact: amounts are whole nano-dollars. What must never happen is
-- refused here, by the database, so that no program, script or person at a prompt can do it by mistake.
--
-- Sign convention: a credit is positive, a debit is negative. A customer's prepaid balance is money that we owe,
-- so it is positive while there is something to spend; cash:* and expense:* run negative, revenue:* positive.

create table account (
  id                     text primary key check (id <> '' and length(id) <= 253),
  display_name           text not null,
  low_balance_nanos      bigint,
  card_grace_seconds     bigint check (card_grace_seconds >= 0),
  time_zone              text not null default 'UTC',
  created_at             timestamptz not null default clock_timestamp()
);

create table ledger_account (
  id        bigint generated always as identity primary key,
  name      text not null unique check (name ~ '^(customer|revenue|cash|expense):.+$'),
  currency  text not null default 'USD',
  -- Set for a customer's account only: its balance must stay at or above zero.
  account   text unique references account (id),
  -- The balance of an account of our own, which every customer's charge touches, is kept in several rows, so that
  -- settlements of different customers do not queue behind one row lock. A customer has one: it is what is locked.
  shards    int not null default 1 check (shards between 1 and 64),
  unique (id, currency),
  check ((account is not null) = (name like 'customer:%')),
  check (account is null or shards = 1)
);

insert into ledger_account (name, shards) values
  ('revenue:gpu', 16), ('revenue:serverless', 16), ('expense:credit_grants', 16), ('expense:uncollected', 16);

create table ledger_transaction (
  position         bigint generated always as identity primary key,
  id               text not null unique check (id like 'txn\_%'),
  type             text not null,
  idempotency_key  text not null unique check (idempotency_key <> ''),
  -- Over the type and the entries only: a retry may carry a fresh time or wording and is still the same transaction.
  content_hash     bytea not null,
  effective_at     timestamptz not null,
  created_at       timestamptz not null default clock_timestamp(),
  description      text not null,
  details          jsonb not null default '{}'
);

create table ledger_entry (
  transaction_position  bigint not null references ledger_transaction (position),
  ordinal               smallint not null check (ordinal >= 1),
  ledger_account        bigint not null,
  amount_nanos          bigint not null check (amount_nanos <> 0),
  currency              text not null,
  primary key (transaction_position, ordinal),
  foreign key (ledger_account, currency) references ledger_account (id, currency)
);
create index ledger_entry_by_account on ledger_entry (ledger_account, transaction_position desc);

-- A projection of the entries, and the row that is locked. v_trial_balance compares the two.
create table ledger_balance (
  ledger_account    bigint not null references ledger_account (id),
  shard             int not null default 0,
  amount_nanos      bigint not null default 0,
  may_be_negative   boolean not null,
  primary key (ledger_account, shard),
  constraint ledger_balance_not_below_zero check (may_be_negative or amount_nanos >= 0)
);

-- Every transaction balances, has two entries or more in one currency, and its entries are numbered from 1 without a gap.
-- Because of the numbering, an entry added to an older transaction can only have an ordinal of 3 or more, so the two
-- triggers below see every case, while the usual transaction of two entries is checked once.
create function refuse_unbalanced() returns trigger language plpgsql as $$
declare
  v_position bigint;
  v_entries int; v_sum numeric; v_currencies int; v_first int; v_last int;
begin
  if tg_table_name = 'ledger_transaction' then
    v_position := new.position;
  else
    v_position := new.transaction_position;
  end if;
  select count(*), coalesce(sum(amount_nanos), 0), count(distinct currency), min(ordinal), max(ordinal)
    into v_entries, v_sum, v_currencies, v_first, v_last
    from ledger_entry where transaction_position = v_position;
  if v_currencies > 1 then
    raise exception 'ledger transaction % mixes currencies', v_position using errcode = 'TM003';
  end if;
  if v_entries < 2 or v_sum <> 0 or v_first <> 1 or v_last <> v_entries then
    raise exception 'ledger transaction % is not balanced: % entries that sum to % nanos', v_position, v_entries, v_sum using errcode = 'TM004';
  end if;
  return null;
end $$;

create constraint trigger ledger_transaction_balances after insert on ledger_transaction
  deferrable initially deferred for each row execute function refuse_unbalanced();
create constraint trigger ledger_entry_balances after insert on ledger_entry
  deferrable initially deferred for each row when (new.ordinal > 2) execute function refuse_unbalanced();

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append only: % is refused', tg_table_name, tg_op using errcode = 'TM007',
    hint = 'Post a correcting transaction instead.';
end $$;

create trigger append_only before update or delete or truncate on ledger_transaction for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on ledger_entry for each statement execute function refuse_change();
create trigger append_only before update or delete or truncate on ledger_account for each statement execute function refuse_change();
