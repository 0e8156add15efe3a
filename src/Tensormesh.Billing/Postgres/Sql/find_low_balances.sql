-- Accounts that may be below their threshold at an instant a little ahead, the longest unchanged first. Cost accrues here as a fraction
-- of an hour and not to the nano, so a thousandth of a dollar too many is let through: the standing decides.
-- $1: now, $2: the instant ahead.
select a.account
from auto_top_up a
join ledger_account l on l.account = a.account
join ledger_balance b on b.ledger_account = l.id
left join token_balance k on k.customer = l.id
where a.disabled_at is null and (a.retry_at is null or a.retry_at <= $1)
  and not exists (select from auto_top_up_attempt t where t.account = a.account and t.ended_at is null)
  and b.amount_nanos - coalesce(k.rated_nanos - k.settled_nanos, 0) - coalesce((
    select sum(greatest(r.gpus * r.per_gpu_hour_nanos * extract(epoch from $2 - r.rated_from) / 3600 - r.rated_nanos, 0))
    from run_interval r where r.account = a.account and r.ended_at is null and r.charge_until is null), 0) < a.threshold_nanos + 1000000
order by a.changed_at, a.account
