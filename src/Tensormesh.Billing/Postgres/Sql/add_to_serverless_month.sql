-- Adds a posted transaction to the month under which it is listed. $1: customer, $2: the month's first day, $3: the transaction's key; of each model:
-- $4: its name, $5: input, $6: cached, $7: output, $8: nanos.
with month as (
  insert into serverless_month (customer, month, position) select $1, $2, t.position from ledger_transaction t where t.idempotency_key = $3
  on conflict (customer, month) do nothing)
insert into serverless_month_model as m (customer, month, model, input_tokens, cached_tokens, output_tokens, amount_nanos)
select $1, $2, s.model, sum(s.input), sum(s.cached), sum(s.output), sum(s.nanos)
from unnest($4, $5, $6, $7, $8) as s(model, input, cached, output, nanos) group by s.model
on conflict (customer, month, model) do update set input_tokens = m.input_tokens + excluded.input_tokens,
  cached_tokens = m.cached_tokens + excluded.cached_tokens, output_tokens = m.output_tokens + excluded.output_tokens,
  amount_nanos = m.amount_nanos + excluded.amount_nanos
