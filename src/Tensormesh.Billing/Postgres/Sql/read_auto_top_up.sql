-- The settings of one account, and what its attempts have charged or may yet charge today and this month: its own days and months, in
-- its time zone, whatever their length. A payment that its holder finished later counts from when it was begun. $1: account, $2: now.
select s.threshold_nanos, s.amount_nanos, s.daily_cap_nanos, s.monthly_cap_nanos, s.declines_in_a_row, s.retry_at, s.disabled_because,
  coalesce(c.today, 0)::bigint, coalesce(c.this_month, 0)::bigint,
  exists (select from auto_top_up_attempt t where t.account = a.id and t.ended_at is null),
  l.amount_nanos, l.begun_at, l.outcome, l.message
from account a
left join auto_top_up s on s.account = a.id
cross join lateral (
  select day_start(($2 at time zone a.time_zone)::date, a.time_zone) as day,
    day_start(date_trunc('month', $2 at time zone a.time_zone)::date, a.time_zone) as month) began
cross join lateral (
  select sum(t.amount_nanos) filter (where t.begun_at >= began.day) as today, sum(t.amount_nanos) as this_month
  from auto_top_up_attempt t
  where t.account = a.id and t.begun_at >= began.month and (t.ended_at is null or t.outcome = 'Succeeded' or exists (
    select from top_up p where p.account = t.account and p.idempotency_key = 'auto/' || t.number and p.state = 'credited'))) c
left join lateral (select * from auto_top_up_attempt t where t.account = a.id order by t.number desc limit 1) l on true
where a.id = $1
