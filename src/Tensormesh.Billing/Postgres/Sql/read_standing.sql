-- One account's standing in one row and one snapshot: two statements could see a settlement between them, and count
-- its money twice or not at all. $1: account, $2: deployment or null.
select
  a.display_name, a.low_balance_nanos, a.card_grace_seconds, a.time_zone, b.amount_nanos,
  i.pods, i.deployments, i.products, i.gpus, i.per_gpu_hour, i.rated_from, i.rated, i.settled_until,
  h.deployments, h.products, h.gpus, h.per_gpu_hour, h.remaining, h.placed_at,
  c.ids, c.brands, c.last4s, c.exp_months, c.exp_years, c.defaults, c.attached_at,
  -- A card that had expired, or was refused, before it was removed stopped being valid then.
  (select max(least(p.detached_at, p.off_session_declined_at, (make_date(p.exp_year, p.exp_month, 1) + interval '1 month') at time zone 'UTC'))
     from payment_method p where p.account = a.id and p.detached_at is not null),
  (select coalesce(sum(r.total_nanos), 0)::bigint from run_interval r where r.deployment = $2),
  c.declined_at, coalesce(k.rated_nanos - k.settled_nanos, 0), k.accepted_at
from account a
join ledger_account l on l.account = a.id
join ledger_balance b on b.ledger_account = l.id
left join token_balance k on k.customer = l.id
cross join lateral (
  select array_agg(pod) pods, array_agg(deployment) deployments, array_agg(product) products, array_agg(gpus) gpus,
         array_agg(per_gpu_hour_nanos) per_gpu_hour, array_agg(rated_from) rated_from, array_agg(rated_nanos) rated,
         array_agg(settled_until) settled_until
  from run_interval r where r.account = a.id and r.ended_at is null and r.charge_until is null) i
cross join lateral (
  select array_agg(deployment) deployments, array_agg(product) products, array_agg(gpus) gpus,
         array_agg(per_gpu_hour_nanos) per_gpu_hour, array_agg(remaining_nanos) remaining, array_agg(placed_at) placed_at
  from credit_hold r where r.account = a.id) h
cross join lateral (
  select array_agg(payment_method_id order by p.id) ids, array_agg(brand order by p.id) brands, array_agg(last4 order by p.id) last4s,
         array_agg(exp_month order by p.id) exp_months, array_agg(exp_year order by p.id) exp_years,
         array_agg(is_default order by p.id) defaults, array_agg(attached_at order by p.id) attached_at,
         array_agg(off_session_declined_at order by p.id) declined_at
  from payment_method p where p.account = a.id and p.detached_at is null) c
where a.id = $1
