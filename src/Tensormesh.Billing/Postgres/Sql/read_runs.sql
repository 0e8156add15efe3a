-- The runs of an account that accrue, and those that are asked for whether or not they do. $1: account, $2: pods.
select
  r.pod, pod_name, deployment, deployment_name, namespace, account, node, product, gpus, started_at,
  price_version, per_gpu_hour_nanos, rated_from, rated_nanos, total_nanos, settled_until, ended_at, charge_until, g.uuids
from run_interval r left join run_interval_gpus g on g.pod = r.pod
where (account = $1 and ended_at is null and charge_until is null) or r.pod = any ($2)
order by started_at, r.pod
