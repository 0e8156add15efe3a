-- What can be seen at any instant, whatever goes on: each row says what of the books contradicts itself.
select 'the entries of transaction ' || transaction_position || ' sum to ' || sum(amount_nanos) from ledger_entry group by transaction_position having sum(amount_nanos) <> 0
union all
select 'the ledger account ' || ledger_account || ' differs by ' || difference_to_projection || ' from its entries' from v_trial_balance where difference_to_projection <> 0
union all
select 'the balance of ' || a.account || ' is ' || b.amount_nanos || ' nanos' from ledger_balance b join ledger_account a on a.id = b.ledger_account
  where a.account is not null and b.amount_nanos < 0
union all
select 'the run of ' || pod_name || ' is settled until ' || settled_until || ', which is ahead' from run_interval where settled_until > clock_timestamp()
union all
select 'the run of ' || pod_name || ' was charged ' || total_nanos || ' nanos, and its movements took ' || moved
from (select r.pod_name, r.total_nanos, coalesce((select -sum(e.amount_nanos) from ledger_transaction t join ledger_entry e on e.transaction_position = t.position
    join ledger_account a on a.id = e.ledger_account and a.account is not null
    where t.details->>'pod' = r.pod::text and t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit')), 0) as moved
  from run_interval r where r.ended_at is null) charged where total_nanos <> moved
union all
select 'the payment ' || (details->>'paymentIntentId') || ' was credited ' || count(*) || ' times' from ledger_transaction where type = 'TopUp'
  group by details->>'paymentIntentId' having count(*) > 1
