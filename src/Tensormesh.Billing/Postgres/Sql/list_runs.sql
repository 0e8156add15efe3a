-- An account's runs, newest first: a page below ($2, $3), the start and pod of the last run of the page before, or nulls. $1: account, $4: limit, $5: only those that accrue.
-- Why a run was stopped is the last suspension of its deployment that began before charging ended.
select r.pod, r.pod_name, r.deployment, r.deployment_name, r.namespace, r.node, r.product, r.gpus, r.per_gpu_hour_nanos, r.rated_from, r.rated_nanos,
  r.total_nanos, r.settled_until, r.started_at, r.ended_at, r.charge_until, g.uuids, s.reason
from run_interval r
left join run_interval_gpus g on g.pod = r.pod
left join lateral (
  select s.reason from suspension s
  where r.charge_until is not null and s.account = r.account and (r.deployment = s.deployment or r.deployment = any (s.deployments)) and s.at <= r.charge_until
  order by s.at desc, s.id desc limit 1) s on true
where r.account = $1 and (not $5 or (r.ended_at is null and r.charge_until is null)) and (r.started_at, r.pod) < (coalesce($2, 'infinity'::timestamptz), coalesce($3, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
order by r.started_at desc, r.pod desc
limit $4
