-- The first sum of spending_bucket that is not what its transactions come to.
select coalesce(a.name, '?' || customer), bucket, type, coalesce(r.amount_nanos, 0), b.amount_nanos, is_day
from spending_bucket b
full join (
  select t.customer, s.is_day, date_bin(s.length, t.effective_at - interval '1 microsecond', timestamptz '2000-01-01 00:00Z') as bucket, t.type,
    -sum(e.amount) as amount_nanos
  from ledger_transaction t cross join lateral unnest(t.accounts, t.amounts) as e(account, amount)
  cross join (values (false, interval '15 minutes'), (true, interval '1 day')) as s(is_day, length)
  where t.type = any (spending_types()) and e.account = t.customer
  group by 1, 2, 3, 4) r using (customer, is_day, bucket, type)
left join ledger_account a on a.id = customer
where b.amount_nanos is distinct from r.amount_nanos
order by 2, 1, 3, 6
limit 1
