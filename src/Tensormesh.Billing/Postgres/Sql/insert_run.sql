-- Idempotent by pod: the first start recorded stays.
with opened as (
  insert into run_interval (
    pod, pod_name, deployment, deployment_name, namespace, account, node, product, gpus, started_at,
    price_version, per_gpu_hour_nanos, rated_from, settled_until)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $10, $10)
  on conflict (pod) do nothing
  returning pod, started_at, price_version, per_gpu_hour_nanos
)
insert into run_interval_rating (pod, from_at, price_version, per_gpu_hour_nanos)
select pod, started_at, price_version, per_gpu_hour_nanos from opened
