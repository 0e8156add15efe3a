-- What an account spent, by the end of each usage window, less corrections and credits for faulty GPUs: rolling sums. $1: account, $2: now.
select
  spent(l.id, $2 - interval '24 hours', $2, spending_types()),
  spent(l.id, $2 - interval '7 days', $2, spending_types()),
  spent(l.id, $2 - interval '30 days', $2, spending_types())
from account a join ledger_account l on l.account = a.id
where a.id = $1
