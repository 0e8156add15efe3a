-- Run intervals (one pod's hold on its GPUs), the prices that applied to each, the money held for deployments,
-- and the record of suspensions.

create table run_interval (
  pod                 uuid primary key,
  pod_name            text not null,
  deployment          uuid not null,
  deployment_name     text not null,
  namespace           text not null,
  account             text not null references account (id),
  node                text not null,
  product             text not null,
  gpus                int not null check (gpus > 0),
  started_at          timestamptz not null,
  price_version       bigint not null references price_version (id),
  per_gpu_hour_nanos  bigint not null check (per_gpu_hour_nanos >= 0),
  -- The running total of the price in force: where it began, and what of it is posted.
  rated_from          timestamptz not null,
  rated_nanos         bigint not null default 0 check (rated_nanos >= 0),
  -- Posted over all prices of the interval.
  total_nanos         bigint not null default 0 check (total_nanos >= rated_nanos),
  settled_until       timestamptz not null,
  ended_at            timestamptz,
  -- Set when charging stops before the pod does: the chargeable end is the earlier of the two.
  charge_until        timestamptz,
  check (rated_from >= started_at),
  check (settled_until >= rated_from),
  check (ended_at >= started_at),
  check (charge_until >= started_at),
  -- What is closed is settled to its end, in the SQL transaction that closes it: nothing is forgotten in between.
  check (coalesce(least(ended_at, charge_until), settled_until) = settled_until)
);
create index run_interval_accruing on run_interval (account) where ended_at is null and charge_until is null;
create index run_interval_open on run_interval (deployment) where ended_at is null;
create index run_interval_by_deployment on run_interval (deployment) include (total_nanos);
create index run_interval_by_product on run_interval (product) where ended_at is null and charge_until is null;

-- The running totals of an interval: one row at its start and one at each price change.
create table run_interval_rating (
  pod                 uuid not null references run_interval (pod),
  from_at             timestamptz not null,
  price_version       bigint not null references price_version (id),
  per_gpu_hour_nanos  bigint not null,
  -- A total may be empty (the price changed in the microsecond of the start); a version never applies twice.
  primary key (pod, price_version)
);
create trigger append_only before update or delete or truncate on run_interval_rating for each statement execute function refuse_change();

create table credit_hold (
  deployment          uuid primary key,
  account             text not null references account (id),
  product             text not null,
  gpus                int not null check (gpus >= 0),
  per_gpu_hour_nanos  bigint not null check (per_gpu_hour_nanos >= 0),
  remaining_nanos     bigint not null check (remaining_nanos >= 0),
  placed_at           timestamptz not null
);
create index credit_hold_by_account on credit_hold (account);

create table suspension (
  id                 bigint generated always as identity primary key,
  account            text not null references account (id),
  -- Null: the whole account.
  deployment         uuid,
  at                 timestamptz not null,
  decided_at         timestamptz not null,
  reason             text not null,
  uncollected_nanos  bigint not null check (uncollected_nanos >= 0),
  deployments        uuid[] not null
);
create index suspension_by_account on suspension (account, id desc);
