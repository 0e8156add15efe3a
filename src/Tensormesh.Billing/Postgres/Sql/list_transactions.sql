-- $1: ledger account name of a customer, $2: before position or null, $3: limit, $4: types or null, $5 and $6: created at or after, and before, or
-- null. Where in the ledger a time begins is searched for, so that a page of long ago reads no more than one of today. Account and position are
-- compared as one, as their index has them. Of what the ledger has of serverless usage each month is one row, where its first transaction is.
with a as materialized (
  select id, coalesce(position_at($5 - interval '10 minutes'), 0) as lower,
    least(coalesce($2::bigint, 9223372036854775807), coalesce(position_at($6 + interval '10 minutes'), 9223372036854775807)) as upper
  from ledger_account where name = $1)
select t.id, t.position, t.type, coalesce(m.amount, (select sum(e.amount) from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = t.customer)::bigint),
  coalesce(m.description, t.description), t.created_at, t.details ->> 'paymentIntentId', t.details ->> 'paymentMethodId', coalesce(m.details, t.details)::text
from ledger_transaction t
left join lateral (select (serverless_month_row(s.customer, s.month)).* from serverless_month s where t.type = 'ServerlessUsage' and s.position = t.position) m on true
where t.customer is not null
  and (t.customer, t.position) >= ((select id from a), (select lower from a)) and (t.customer, t.position) < ((select id from a), (select upper from a))
  and (t.type <> 'ServerlessUsage' or m.amount is not null)
  and ($4::text[] is null or t.type = any ($4)) and t.created_at >= coalesce($5, '-infinity') and t.created_at < coalesce($6, 'infinity')
order by t.customer desc, t.position desc
limit $3
