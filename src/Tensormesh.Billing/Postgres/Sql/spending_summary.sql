-- What an account spent, by the end of each usage window, less corrections and credits for faulty GPUs. $1: account, $2: now.
select
  coalesce(-sum(t.amount) filter (where t.effective_at > $2 - interval '24 hours'), 0)::bigint,
  coalesce(-sum(t.amount) filter (where t.effective_at > $2 - interval '7 days'), 0)::bigint,
  coalesce(-sum(t.amount) filter (where t.effective_at > $2 - interval '30 days'), 0)::bigint,
  coalesce(-sum(t.amount) filter (where t.effective_at > date_trunc('month', $2 at time zone a.time_zone) at time zone a.time_zone), 0)::bigint
from account a
join ledger_account l on l.account = a.id
left join lateral (
  select t.effective_at, (select sum(e.amount) from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = l.id) as amount
  from ledger_transaction t
  where t.customer = l.id and t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit', 'ServerlessUsage')
    and t.effective_at <= $2 and t.effective_at > $2 - interval '32 days') t on true
where a.id = $1
group by a.id
