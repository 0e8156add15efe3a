-- Writes runs as computed under the account's lock, each only if it is still settled to where the computation began.
-- The running totals of new prices are recorded with them.
with computed as (
  select * from unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::bigint[], $7::bigint[],
    $8::timestamptz[], $9::timestamptz[], $10::timestamptz[])
  as c(pod, expected, price_version, per_gpu_hour_nanos, rated_from, rated_nanos, total_nanos, settled_until, ended_at, charge_until)
), rated as (
  insert into run_interval_rating (pod, from_at, price_version, per_gpu_hour_nanos)
  select pod, from_at, price_version, per_gpu_hour_nanos
  from unnest($11::uuid[], $12::timestamptz[], $13::bigint[], $14::bigint[]) as n(pod, from_at, price_version, per_gpu_hour_nanos)
)
update run_interval r set
  price_version = c.price_version, per_gpu_hour_nanos = c.per_gpu_hour_nanos, rated_from = c.rated_from, rated_nanos = c.rated_nanos,
  total_nanos = c.total_nanos, settled_until = c.settled_until, ended_at = c.ended_at, charge_until = c.charge_until
from computed c
where r.pod = c.pod and r.settled_until = c.expected and r.ended_at is null
