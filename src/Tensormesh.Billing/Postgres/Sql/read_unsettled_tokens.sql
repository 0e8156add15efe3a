-- What the ledger has not been told of a customer's tokens, in the order of time, with the day of the account's own calendar that it belongs to.
-- $1: customer, $2: the first bucket that may have something.
select b.bucket, b.model, b.price_version, (b.bucket at time zone a.time_zone)::date, b.last_at,
  b.input_tokens - b.settled_input, b.cached_tokens - b.settled_cached, b.output_tokens - b.settled_output, b.cost_nanos - b.settled_nanos
from token_bucket b join ledger_account l on l.id = b.customer join account a on a.id = l.account
where b.customer = $1 and b.bucket >= $2 and b.price_version <> 0
  and (b.settled_nanos <> b.cost_nanos or b.settled_input <> b.input_tokens or b.settled_output <> b.output_tokens)
order by b.bucket, b.model, b.price_version
