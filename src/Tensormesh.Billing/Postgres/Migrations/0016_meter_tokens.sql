-- Serverless usage: events of inference servers, each counted once; running totals by account, model and price version, from which the price
-- follows; and what of it is in the ledger. decision 43 says why it is these tables.

-- Partitioned by the day of the event, in UTC: an old day is dropped as a whole, and an event is looked for among those of its own day only, so that
-- neither costs more with the years.
create table usage_event (
  day            date not null,
  source         text not null,
  id             text not null,
  customer       bigint not null,
  model          text not null,
  at             timestamptz not null,
  input_tokens   bigint not null,
  -- Part of the input.
  cached_tokens  bigint not null,
  output_tokens  bigint not null,
  request_id     text,
  api_key_id     text,
  received_at    timestamptz not null,
  primary key (day, source, id),
  check (cached_tokens >= 0 and cached_tokens <= input_tokens and output_tokens >= 0 and input_tokens + output_tokens > 0)
) partition by range (day);
create trigger append_only before update or delete or truncate on usage_event for each statement execute function refuse_change();

-- The row that is locked by whoever changes a customer's tokens. rated - settled is what the customer owes beyond what the ledger has.
create table token_balance (
  customer         bigint primary key references ledger_account (id),
  rated_nanos      bigint not null default 0,
  settled_nanos    bigint not null default 0,
  -- The first bucket that is not settled, and when that was accepted; null: all is.
  unsettled_from   timestamptz,
  unsettled_since  timestamptz,
  -- When usage that costs something was last accepted, and in which trace.
  accepted_at      timestamptz,
  traceparent      text,
  check (settled_nanos >= 0 and rated_nanos >= settled_nanos),
  check ((unsettled_from is null) = (unsettled_since is null) and (unsettled_from is not null or rated_nanos = settled_nanos))
) with (fillfactor = 50);

-- The running total of a model at a price. What is due for it is rounded once, so that no sum of roundings comes out of many events.
create table token_meter (
  customer       bigint not null references token_balance (customer),
  model          text not null,
  price_version  bigint not null references price_version (id),
  events         bigint not null,
  input_tokens   bigint not null,
  cached_tokens  bigint not null,
  output_tokens  bigint not null,
  primary key (customer, model, price_version)
) with (fillfactor = 50);

-- The same by quarters of an hour of the events' own time, as spending_bucket has them (after this instant and up to a quarter of an hour later), for
-- reports, and for what the ledger is to be told. Price version 0: the model has no price yet, and nothing is charged for it before it has.
create table token_bucket (
  customer        bigint not null references token_balance (customer),
  bucket          timestamptz not null,
  model           text not null,
  price_version   bigint not null,
  events          bigint not null,
  input_tokens    bigint not null,
  cached_tokens   bigint not null,
  output_tokens   bigint not null,
  cost_nanos      bigint not null,
  last_at         timestamptz not null,
  settled_input   bigint not null default 0,
  settled_cached  bigint not null default 0,
  settled_output  bigint not null default 0,
  settled_nanos   bigint not null default 0,
  primary key (customer, bucket, model, price_version),
  check (cost_nanos >= 0 and settled_nanos between 0 and cost_nanos and (price_version <> 0 or cost_nanos = 0)),
  check (settled_input between 0 and input_tokens and settled_cached between 0 and cached_tokens and settled_output between 0 and output_tokens)
) with (fillfactor = 50);
create index token_bucket_unpriced on token_bucket (model, customer) where price_version = 0;

-- What the ledger has of an account's month, which lists show as one row: where that is, and what is in it.
create table serverless_month (
  customer  bigint not null,
  -- Its first day, in the account's calendar when it was posted.
  month     date not null check (extract(day from month) = 1),
  -- Of the first transaction of the month.
  position  bigint not null unique,
  primary key (customer, month)
);
create table serverless_month_model (
  customer       bigint not null,
  month          date not null,
  model          text not null,
  input_tokens   bigint not null,
  cached_tokens  bigint not null,
  output_tokens  bigint not null,
  amount_nanos   bigint not null,
  primary key (customer, month, model),
  foreign key (customer, month) references serverless_month (customer, month)
) with (fillfactor = 50);
