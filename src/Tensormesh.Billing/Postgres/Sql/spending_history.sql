-- What an account spent on each of its last days, today last, in its own time zone, and what a lower price for cached tokens saved. $1: account, $2: now, $3: how many days.
select d.starts, spent(d.customer, d.starts, d.ends, gpu_spending_types()), spent(d.customer, d.starts, d.ends, array['ServerlessUsage']), tokens_saved(d.customer, d.starts, d.ends)
from (
  select l.id as customer, day_start(n.day, a.time_zone) as starts, least(day_start(n.day + 1, a.time_zone), $2) as ends
  from account a
  join ledger_account l on l.account = a.id
  cross join lateral (
    select ($2 at time zone a.time_zone)::date - ago as day from generate_series($3::int - 1, 0, -1) as ago) n
  where a.id = $1
  offset 0) d
order by d.starts
