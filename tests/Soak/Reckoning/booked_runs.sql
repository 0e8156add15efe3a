-- Every run, the prices that it was rated at, and what the ledger moved for it.
select r.pod, r.account, r.product, r.gpus, r.started_at, r.ended_at, r.charge_until,
  exists (select from suspension s where s.account = r.account and s.at = r.charge_until),
  (select array_agg(g.from_at order by g.from_at, g.price_version) from run_interval_rating g where g.pod = r.pod),
  (select array_agg(g.per_gpu_hour_nanos order by g.from_at, g.price_version) from run_interval_rating g where g.pod = r.pod),
  coalesce(m.nanos, 0)
from run_interval r left join (
  select (t.details->>'pod')::uuid as pod, -sum(e.amount_nanos)::bigint as nanos
  from ledger_transaction t join ledger_entry e on e.transaction_position = t.position join ledger_account a on a.id = e.ledger_account and a.account is not null
  where t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit') group by 1) m on m.pod = r.pod
