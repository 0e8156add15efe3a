-- Every posting of a customer in the order of the ledger, as MoneyLeft reads it. $1: ledger account.
select t.position, t.type, (select sum(e.amount) from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = l.id)::bigint,
  t.effective_at, case when t.type = 'CreditGrant' then (t.details ->> 'expiresAt')::timestamptz end, t.corrects
from ledger_account l join ledger_transaction t on t.customer = l.id
where l.name = $1
order by t.position
