-- What a real payment company needs remembered: which customer of its is which account, what it told us by webhook, up to when its books
-- were compared with ours, and where the two disagree.

-- An account has one customer at a time. A customer that is deleted over there is never used again; the next has the next number.
create table payment_customer (
  account      text not null references account (id),
  provider     text not null,
  customer_id  text not null,
  number       int not null check (number >= 1),
  created_at   timestamptz not null,
  deleted_at   timestamptz,
  primary key (provider, customer_id),
  unique (account, provider, number)
);
create unique index payment_customer_current on payment_customer (account, provider) where deleted_at is null;

-- The bank refused the card when nobody was there to ask: it is no valid card until a payment with it succeeds.
alter table payment_method add column off_session_declined_at timestamptz;

-- What the payment company knows an attempt by: a payment that it reports finds its attempt by this.
alter table top_up add column top_up_id text unique;
create unique index top_up_payment on top_up (payment_intent_id) where payment_intent_id is not null and state = 'credited' and top_up_id is not null;

-- Written in the SQL transaction that has the event's effect: an event that is here has had it, and one that is not will come again.
create table payment_event (
  provider     text not null,
  event_id     text not null,
  type         text not null,
  object_id    text not null,
  effect       text not null,
  received_at  timestamptz not null,
  primary key (provider, event_id)
);

-- Open until it is found to agree, or a person has looked into it and set resolved_at.
create table payment_mismatch (
  provider       text not null,
  object_id      text not null,
  kind           text not null,
  detail         text not null,
  first_seen_at  timestamptz not null,
  resolved_at    timestamptz,
  primary key (provider, object_id, kind)
);
create index payment_mismatch_open on payment_mismatch (provider) where resolved_at is null;

create table payment_watermark (
  provider          text primary key,
  reconciled_until  timestamptz not null
);
