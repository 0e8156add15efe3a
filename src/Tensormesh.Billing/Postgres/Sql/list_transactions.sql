-- $1: ledger account name of a customer, $2: before position or null, $3: limit.
select t.id, t.position, t.type,
  (select sum(e.amount) from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = a.id)::bigint,
  t.description, t.created_at, t.details ->> 'paymentIntentId', t.details ->> 'paymentMethodId', t.details::text
from ledger_account a
join ledger_transaction t on t.customer = a.id
where a.name = $1 and ($2::bigint is null or t.position < $2)
order by t.position desc
limit $3
