-- The first sum of spending_bucket that is not what its transactions come to.
select coalesce(a.name, '?' || customer), bucket, type, coalesce(r.amount_nanos, 0), b.amount_nanos
from spending_bucket b
full join (
  select t.customer, date_bin('15 minutes', t.effective_at - interval '1 microsecond', timestamptz '2000-01-01 00:00Z') as bucket, t.type,
    -sum(e.amount) as amount_nanos
  from ledger_transaction t cross join lateral unnest(t.accounts, t.amounts) as e(account, amount)
  where t.type = any (spending_types()) and e.account = t.customer
  group by 1, 2, 3) r using (customer, bucket, type)
left join ledger_account a on a.id = customer
where b.amount_nanos is distinct from r.amount_nanos
order by 2, 1, 3
limit 1
