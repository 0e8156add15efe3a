-- One transaction of a customer, what it takes back, and what takes it back. $1: ledger account name of the customer, $2: transaction id.
select t.id, t.position, t.type,
  coalesce(m.amount, (select sum(e.amount) from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = a.id)::bigint),
  coalesce(m.description, t.description), t.created_at, t.details ->> 'paymentIntentId', t.details ->> 'paymentMethodId', coalesce(m.details, t.details)::text,
  t.effective_at, (select o.id from ledger_transaction o where o.position = t.corrects),
  array(select c.id from ledger_transaction c where c.corrects = t.position order by c.position)
from ledger_account a
join ledger_transaction t on t.customer = a.id
left join lateral (select (serverless_month_row(s.customer, s.month)).* from serverless_month s where t.type = 'ServerlessUsage' and s.position = t.position) m on true
where a.name = $1 and t.id = $2
