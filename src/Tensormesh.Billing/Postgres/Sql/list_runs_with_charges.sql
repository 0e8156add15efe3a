-- Every run interval beside what the ledger moved for its pod (usage, less corrections and credits) and the prices that it ran on. A row
-- without a run is of charges for a pod that never had one.
select coalesce(r.pod::text, p.pod), r.pod is not null, r.gpus, r.product, r.settled_until, r.total_nanos, coalesce(p.nanos, 0),
  t.from_at, t.versions, t.rated_nanos, t.items, t.priced_nanos
from run_interval r
full join (
  select t.details ->> 'pod' as pod, -sum(e.amount) as nanos
  from ledger_transaction t cross join lateral unnest(t.accounts, t.amounts) as e(account, amount)
  where t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit') and e.account = t.customer
  group by 1) p on p.pod = r.pod::text
left join lateral (
  select array_agg(x.from_at order by x.from_at, x.price_version) as from_at, array_agg(x.price_version order by x.from_at, x.price_version) as versions,
    array_agg(x.per_gpu_hour_nanos order by x.from_at, x.price_version) as rated_nanos, array_agg(v.item order by x.from_at, x.price_version) as items,
    array_agg(coalesce(v.per_gpu_hour_nanos, -1) order by x.from_at, x.price_version) as priced_nanos
  from run_interval_rating x left join price_version v on v.id = x.price_version where x.pod = r.pod) t on true
order by 1
