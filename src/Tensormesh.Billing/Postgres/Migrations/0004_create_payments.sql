-- Cards on file, by the payment company's ids (no card number ever reaches this database), and attempts to add money.

create table payment_method (
  id                 bigint generated always as identity primary key,
  account            text not null references account (id),
  payment_method_id  text not null,
  provider           text not null,
  brand              text not null,
  last4              text not null check (last4 ~ '^[0-9]{4}$'),
  exp_month          int not null check (exp_month between 1 and 12),
  exp_year           int not null check (exp_year between 2000 and 9998),
  is_default         boolean not null,
  attached_at        timestamptz not null,
  detached_at        timestamptz
);
create unique index payment_method_attached on payment_method (account, payment_method_id) where detached_at is null;
create unique index payment_method_default on payment_method (account) where is_default and detached_at is null;
create index payment_method_by_account on payment_method (account);

-- The row is written before the card is charged and credited in the SQL transaction that posts the money: a crash in
-- between leaves 'started', and the same key again finds the same charge at the payment company and credits it once.
create table top_up (
  account            text not null references account (id),
  idempotency_key    text not null check (idempotency_key <> ''),
  amount_nanos       bigint not null check (amount_nanos > 0),
  payment_method_id  text not null,
  state              text not null check (state in ('started', 'credited', 'declined')),
  payment_intent_id  text,
  decline_code       text,
  decline_message    text,
  created_at         timestamptz not null,
  primary key (account, idempotency_key)
);
