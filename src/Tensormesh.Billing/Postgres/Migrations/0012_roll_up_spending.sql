-- What each account spent, in quarters of an hour and in days (UTC): reports add up a few rows, however many transactions there are. A row is
-- changed by the SQL transaction that posts, whoever posts, so that no reader ever sees one without the other.

create table spending_bucket (
  customer      bigint not null,
  is_day        boolean not null,
  -- The bucket has what is effective after this instant and up to a quarter of an hour, or a day, later: a usage window belongs where it ends. Every time
  -- zone in use is whole quarters of an hour from UTC, so that its days begin between two buckets.
  bucket        timestamptz not null,
  type          text not null,
  -- Positive: spent. Corrections and credits for faulty GPUs are negative.
  amount_nanos  bigint not null,
  primary key (customer, is_day, bucket, type)
) with (fillfactor = 50);

create function roll_up_spending() returns trigger language plpgsql as $$
declare
  c_origin constant timestamptz := timestamptz '2000-01-01 00:00Z';
  v_at timestamptz := new.effective_at - interval '1 microsecond';
  v_spent bigint := 0;
begin
  for i in 1..cardinality(new.accounts) loop
    if new.accounts[i] = new.customer then
      v_spent := v_spent - new.amounts[i];
    end if;
  end loop;
  insert into spending_bucket as b (customer, is_day, bucket, type, amount_nanos)
    values (new.customer, false, date_bin('15 minutes', v_at, c_origin), new.type, v_spent), (new.customer, true, date_bin('1 day', v_at, c_origin), new.type, v_spent)
    on conflict (customer, is_day, bucket, type) do update set amount_nanos = b.amount_nanos + excluded.amount_nanos;
  return null;
end $$;

insert into spending_bucket (customer, is_day, bucket, type, amount_nanos)
select t.customer, s.is_day, date_bin(s.length, t.effective_at - interval '1 microsecond', timestamptz '2000-01-01 00:00Z'), t.type, -sum(e.amount)
from ledger_transaction t cross join lateral unnest(t.accounts, t.amounts) as e(account, amount)
cross join (values (false, interval '15 minutes'), (true, interval '1 day')) as s(is_day, length)
where t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit', 'ServerlessUsage') and e.account = t.customer
group by 1, 2, 3, 4;

-- Both columns in one direction, so that a page begins where the one before ended by comparing them as one: "this account, newest first" alone
-- lets Postgres look for an account's newest among everybody's.
drop index ledger_transaction_by_customer;
create index ledger_transaction_by_customer on ledger_transaction (customer, position) where customer is not null;

-- Other movements pay nothing for it. The index is for the two ends of a time that begins or ends within a quarter of an hour.
create trigger rolls_up_spending after insert on ledger_transaction for each row
  when (new.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit', 'ServerlessUsage') and new.customer is not null)
  execute function roll_up_spending();
create index ledger_transaction_spending on ledger_transaction (customer, effective_at)
  where type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit', 'ServerlessUsage');
