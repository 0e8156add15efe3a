-- What an account spent, by the end of each usage window, less corrections. $1: account, $2: now.
select
  coalesce(-sum(e.amount_nanos) filter (where t.effective_at > $2 - interval '24 hours'), 0)::bigint,
  coalesce(-sum(e.amount_nanos) filter (where t.effective_at > $2 - interval '7 days'), 0)::bigint,
  coalesce(-sum(e.amount_nanos) filter (where t.effective_at > $2 - interval '30 days'), 0)::bigint,
  coalesce(-sum(e.amount_nanos) filter (where t.effective_at > date_trunc('month', $2 at time zone a.time_zone) at time zone a.time_zone), 0)::bigint
from account a
join ledger_account l on l.account = a.id
left join ledger_entry e on e.ledger_account = l.id
left join ledger_transaction t on t.position = e.transaction_position
  and t.type in ('GpuUsage', 'GpuUsageCorrection', 'ServerlessUsage') and t.effective_at <= $2 and t.effective_at > $2 - interval '32 days'
where a.id = $1
group by a.id
