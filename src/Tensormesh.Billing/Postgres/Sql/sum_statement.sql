-- What is on a statement, by type, and apart what took effect by the instant at which its period begins. $1: customer, $2: from position, $3: opening position, $4: closing
-- position, $5: period start, $6: period end.
select t.type, t.effective_at <= $5 as correction, count(*), sum(e.amount)
from ledger_transaction t cross join lateral (
  select sum(e.amount) as amount from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = $1) e
where t.customer = $1 and t.position >= $2 and t.position <= $4 and t.effective_at <= $6 and (t.position > $3 or t.effective_at > $5)
group by 1, 2 order by 1, 2
