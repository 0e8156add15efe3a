-- Writes runs as computed under the account's lock, each only if it is still settled to where the computation began, and ended no
-- other than it was then. The running totals of new prices are recorded with them, and the ends with the GPUs that were held.
with computed as (
  select * from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::bigint[], $8::bigint[],
    $9::timestamptz[], $10::timestamptz[], $11::timestamptz[])
  as c(pod, expected, expected_end, price_version, per_gpu_hour_nanos, rated_from, rated_nanos, total_nanos, settled_until, ended_at, charge_until)
), rated as (
  insert into run_interval_rating (pod, from_at, price_version, per_gpu_hour_nanos)
  select pod, from_at, price_version, per_gpu_hour_nanos
  from unnest($12::uuid[], $13::timestamptz[], $14::bigint[], $15::bigint[]) as n(pod, from_at, price_version, per_gpu_hour_nanos)
), released as (
  update gpu_holder g set held_until = c.ended_at from computed c
  where g.pod = c.pod and c.ended_at is not null and c.expected_end is null
)
update run_interval r set
  price_version = c.price_version, per_gpu_hour_nanos = c.per_gpu_hour_nanos, rated_from = c.rated_from, rated_nanos = c.rated_nanos,
  total_nanos = c.total_nanos, settled_until = c.settled_until, ended_at = c.ended_at, charge_until = c.charge_until
from computed c
where r.pod = c.pod and r.settled_until = c.expected and r.ended_at is not distinct from c.expected_end
  -- An end, once recorded, stays.
  and (r.ended_at is null or c.ended_at = r.ended_at)
