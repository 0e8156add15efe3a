-- $1: ledger account name, $2: before position or null, $3: limit.
select t.id, t.position, t.type, e.amount_nanos, t.description, t.created_at,
  t.details ->> 'paymentIntentId', t.details ->> 'paymentMethodId', t.details::text
from ledger_account a
join ledger_entry e on e.ledger_account = a.id
join ledger_transaction t on t.position = e.transaction_position
where a.name = $1 and ($2::bigint is null or e.transaction_position < $2)
order by e.transaction_position desc
limit $3
