-- $1: ledger account name of a customer, $2: before position or null, $3: limit, $4: types or null, $5 and $6: created at or after, and before, or
-- null. Where in the ledger a time begins is searched for, so that a page of long ago reads no more than one of today.
select t.id, t.position, t.type,
  (select sum(e.amount) from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = a.id)::bigint,
  t.description, t.created_at, t.details ->> 'paymentIntentId', t.details ->> 'paymentMethodId', t.details::text
from ledger_account a
join ledger_transaction t on t.customer = a.id
where a.name = $1
  and t.position < coalesce($2::bigint, 9223372036854775807)
  and ($4::text[] is null or t.type = any ($4))
  and t.position >= coalesce(position_at($5 - interval '10 minutes'), 0) and t.created_at >= coalesce($5, '-infinity')
  and t.position < coalesce(position_at($6 + interval '10 minutes'), 9223372036854775807) and t.created_at < coalesce($6, 'infinity')
order by t.position desc
limit $3
