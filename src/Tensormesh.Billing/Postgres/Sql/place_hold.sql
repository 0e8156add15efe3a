insert into credit_hold (deployment, account, product, gpus, per_gpu_hour_nanos, remaining_nanos, placed_at)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (deployment) do update set
  account = excluded.account, product = excluded.product, gpus = excluded.gpus,
  per_gpu_hour_nanos = excluded.per_gpu_hour_nanos, remaining_nanos = excluded.remaining_nanos
