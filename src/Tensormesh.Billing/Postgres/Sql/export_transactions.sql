-- Every transaction of a customer that took effect in a period, oldest first, as a spreadsheet reads it. {customer}: id, {from}, {to}: instants.
select t.id as "TransactionId", t.type as "Type", to_char(t.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as "CreatedAt",
  to_char(t.effective_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as "EffectiveAt",
  trim_scale(e.amount / 1000000000) as "Amount", t.currency as "Currency",
  case when t.description ~ '^[=+@\t\r-]' then '''' else '' end || t.description as "Description",
  t.details ->> 'deploymentName' as "Deployment", t.details ->> 'namespace' as "Namespace", t.details ->> 'podName' as "Pod",
  t.details ->> 'product' as "GpuProduct", t.details ->> 'gpus' as "Gpus", t.details ->> 'windowStart' as "WindowStart",
  t.details ->> 'windowEnd' as "WindowEnd", t.details ->> 'priceVersion' as "PriceVersion", t.details ->> 'paymentIntentId' as "PaymentIntentId"
from ledger_transaction t cross join lateral (
  select sum(e.amount) as amount from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = t.customer) e
where t.customer = {customer} and t.effective_at > '{from}' and t.effective_at <= '{to}'
order by t.position
