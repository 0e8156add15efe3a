-- The runs of an account that accrue, and one that is asked for whether or not it does. $1: account, $2: pod or null.
select
  pod, pod_name, deployment, deployment_name, namespace, account, node, product, gpus, started_at,
  price_version, per_gpu_hour_nanos, rated_from, rated_nanos, total_nanos, settled_until, ended_at, charge_until
from run_interval
where (account = $1 and ended_at is null and charge_until is null) or pod = $2
order by started_at, pod
