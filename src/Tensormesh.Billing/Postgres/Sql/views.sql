-- For people at a psql prompt: amounts in dollars, names instead of ids.

create or replace function dollars(nanos numeric) returns numeric language sql immutable as $$ select round(nanos / 1000000000, 9) $$;

drop view if exists v_balance, v_transaction, v_run_interval, v_hold, v_price, v_trial_balance, v_suspension, v_serverless_usage, v_ledger_balance_rebuilt,
  ledger_entry;

create view ledger_entry as
select t.position as transaction_position, e.ordinal::smallint as ordinal, e.account as ledger_account, e.amount as amount_nanos, t.currency
from ledger_transaction t cross join lateral unnest(t.accounts, t.amounts) with ordinality as e(account, amount, ordinal);
comment on view ledger_entry is 'The entries of every ledger transaction, a row each. Credits are positive, debits negative. Nano-dollars.';

create or replace function refuse_entry() returns trigger language plpgsql as $$
begin
  raise exception 'entries are part of their transaction: % is refused', tg_op using errcode = 'TM007',
    hint = 'Call post_transaction, or post a correcting transaction.';
end $$;
create trigger part_of_its_transaction before insert or update or delete on ledger_entry for each statement execute function refuse_entry();
create trigger part_of_its_transaction_row instead of insert or update or delete on ledger_entry for each row execute function refuse_entry();

create view v_ledger_balance_rebuilt as
select a.id as ledger_account, a.name, coalesce(sum(e.amount_nanos), 0) as rebuilt_nanos,
  case when a.account is not null then coalesce((select b.amount_nanos from ledger_balance b where b.ledger_account = a.id), 0) end as projected_nanos
from ledger_account a left join ledger_entry e on e.ledger_account = a.id
group by a.id, a.name, a.account;
comment on view v_ledger_balance_rebuilt is 'Every ledger account''s balance, summed from its entries and, of customers, as the projection has it. The two must agree.';

create view v_trial_balance as
select name as ledger_account, dollars(rebuilt_nanos) as balance, dollars(rebuilt_nanos - coalesce(projected_nanos, rebuilt_nanos)) as difference_to_projection
from v_ledger_balance_rebuilt order by name;
comment on view v_trial_balance is 'Balance of each ledger account from its entries. sum(balance) must be 0, and difference_to_projection 0 on every row.';

create view v_balance as
select a.id as account, a.display_name, dollars(b.amount_nanos) as balance,
  dollars(coalesce((select k.rated_nanos - k.settled_nanos from token_balance k where k.customer = l.id), 0)) as tokens_due,
  dollars(coalesce((select sum(h.remaining_nanos) from credit_hold h where h.account = a.id), 0)) as held,
  dollars(coalesce((select sum(r.per_gpu_hour_nanos * r.gpus) from run_interval r
    where r.account = a.id and r.ended_at is null and r.charge_until is null), 0)) as burn_per_hour
from account a join ledger_account l on l.account = a.id join ledger_balance b on b.ledger_account = l.id order by a.id;
comment on view v_balance is 'Each customer''s posted balance (before what accrued since the last settlement), what tokens cost that it does not have yet, what of it is held, and what runs cost per hour. Dollars.';

create view v_transaction as
select t.position, t.id as transaction, t.type, a.name as ledger_account, dollars(e.amount_nanos) as amount,
  t.effective_at, t.created_at, t.description, t.idempotency_key, t.details
from ledger_transaction t join ledger_entry e on e.transaction_position = t.position join ledger_account a on a.id = e.ledger_account
order by t.position, e.ordinal;
comment on view v_transaction is 'Every entry of every ledger transaction, in order. Credits are positive, debits negative; the entries of a transaction sum to 0. Dollars.';

create view v_run_interval as
select r.account, r.namespace, r.deployment_name, r.pod_name, r.node, r.product, r.gpus, dollars(r.per_gpu_hour_nanos) as per_gpu_hour, r.price_version,
  r.started_at, r.ended_at, r.charge_until, least(r.ended_at, r.charge_until) as chargeable_end, r.settled_until,
  dollars(r.total_nanos) as charged, r.ended_at is null and r.charge_until is null as accrues, r.deployment, r.pod, g.uuids as gpu_uuids
from run_interval r left join run_interval_gpus g on g.pod = r.pod order by r.started_at, r.pod;
comment on view v_run_interval is 'Each pod''s hold on its GPUs: when it began and ended, until when it is settled, and what was charged for it so far. Dollars.';

create view v_hold as
select h.account, h.deployment, h.product, h.gpus, dollars(h.per_gpu_hour_nanos) as per_gpu_hour, dollars(h.remaining_nanos) as remaining, h.placed_at
from credit_hold h order by h.account, h.placed_at;
comment on view v_hold is 'Money set aside for each deployment that may run, less what was settled for it. Dollars.';

create view v_price as
select p.id as version, p.book, p.kind, p.item, p.withdrawn, dollars(p.per_gpu_hour_nanos) as per_gpu_hour,
  dollars(p.input_per_million_nanos) as input_per_million, dollars(p.output_per_million_nanos) as output_per_million,
  dollars(p.cached_per_million_nanos) as cached_per_million, p.effective_at,
  p.id = first_value(p.id) over (partition by p.book, p.kind, p.item order by p.effective_at desc, p.id desc) as newest
from price_version p order by p.kind, p.item, p.effective_at, p.id;
comment on view v_price is 'Every price version ever published; newest marks the last of its book and item. Dollars.';

create view v_suspension as
select s.id, s.account, s.deployment, s.at, s.decided_at, s.reason, dollars(s.uncollected_nanos) as uncollected, s.deployments
from suspension s order by s.id;
comment on view v_suspension is 'Each time that charging was stopped: the instant, when it was decided, why, and what ran late at nobody''s cost. Dollars.';

create view v_serverless_usage as
select l.account, b.bucket as after, b.bucket + interval '15 minutes' as until, b.model, nullif(b.price_version, 0) as price_version, b.events, b.input_tokens,
  b.cached_tokens, b.output_tokens, case when b.price_version <> 0 then dollars(b.cost_nanos) end as cost, dollars(b.settled_nanos) as settled
from token_bucket b join ledger_account l on l.id = b.customer order by b.bucket, l.account, b.model, b.price_version;
comment on view v_serverless_usage is 'Tokens by account, quarter of an hour and model, what they cost, and what of that the ledger has. Without a price version: they wait for one. Dollars.';
