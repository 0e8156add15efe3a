-- The closed statements of an account, oldest first. $1: account.
select month, time_zone, period_start, period_end, from_position, opening_position, closing_position, carried_from,
  opening_balance_nanos, closing_balance_nanos, lines::text, previous_hash, hash, closed_at
from statement where account = $1 order by month
