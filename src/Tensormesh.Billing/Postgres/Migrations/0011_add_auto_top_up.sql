-- Money that is added by itself: when a balance falls below what its owner said, a card on file is charged. What would charge a card
-- twice, or for ever, is refused here.

create table auto_top_up (
  account             text primary key references account (id),
  threshold_nanos     bigint not null check (threshold_nanos > 0),
  -- One top-up lifts any balance to the threshold at least, so that none is made for want of the one before it.
  amount_nanos        bigint not null check (amount_nanos >= threshold_nanos and amount_nanos % 10000000 = 0),
  daily_cap_nanos     bigint not null check (daily_cap_nanos >= amount_nanos),
  monthly_cap_nanos   bigint not null check (monthly_cap_nanos >= daily_cap_nanos),
  declines_in_a_row   int not null default 0 check (declines_in_a_row between 0 and 3),
  retry_at            timestamptz,
  -- Set together after the last decline that was one too many; changing the settings begins anew.
  disabled_at         timestamptz,
  disabled_because    text,
  changed_at          timestamptz not null,
  check ((disabled_at is null) = (disabled_because is null)),
  check ((declines_in_a_row = 3) = (disabled_at is not null))
);

-- Written before the card is charged. The number makes the idempotency key of the top-up, so that whoever goes on with an attempt after
-- a crash finds the charge that was begun. Kept when the settings go: what was charged stays charged.
create table auto_top_up_attempt (
  account            text not null references account (id),
  number             int not null check (number >= 1),
  amount_nanos       bigint not null check (amount_nanos > 0),
  payment_method_id  text not null,
  begun_at           timestamptz not null,
  -- Until then whoever claimed it is at work, and nobody else looks.
  claimed_until      timestamptz not null,
  ended_at           timestamptz,
  outcome            text check (outcome in ('Succeeded', 'Declined', 'AuthenticationRequired', 'Refused')),
  message            text,
  primary key (account, number),
  check ((ended_at is null) = (outcome is null))
);
-- One at a time for each account, whoever asks.
create unique index auto_top_up_in_flight on auto_top_up_attempt (account) where ended_at is null;
create index auto_top_up_attempt_claims on auto_top_up_attempt (claimed_until) where ended_at is null;
