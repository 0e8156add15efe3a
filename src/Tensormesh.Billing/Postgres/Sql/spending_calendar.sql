-- What an account spent, by the end of each usage window, less corrections and credits for faulty GPUs, in the calendar of the account's own
-- time zone: today, the week before, the month before this one, this month before today. $1: account, $2: now.
select
  spent(c.customer, c.today, $2, spending_types()),
  spent(c.customer, c.week_ago, c.today, spending_types()),
  spent(c.customer, c.month_before, c.month, spending_types()),
  spent(c.customer, c.month, c.today, spending_types()),
  c.next_month,
  -- Of today and of this month before it, of tokens that the ledger is not told of yet.
  unsettled_tokens(c.customer, c.today, 'infinity'), unsettled_tokens(c.customer, c.month, c.today)
from (
  select l.id as customer, day_start(d.today, a.time_zone) as today, day_start(d.today - 7, a.time_zone) as week_ago,
    day_start(d.month, a.time_zone) as month, day_start((d.month - interval '1 month')::date, a.time_zone) as month_before,
    day_start((d.month + interval '1 month')::date, a.time_zone) as next_month
  from account a
  join ledger_account l on l.account = a.id
  cross join lateral (
    select ($2 at time zone a.time_zone)::date as today, date_trunc('month', $2 at time zone a.time_zone)::date as month) d
  where a.id = $1
  offset 0) c
