-- Notes what the ledger is told of tokens. $1: customer, $2: bucket, $3: model, $4: price version, $5: input, $6: cached, $7: output, $8: nanos, of each row;
-- $9: the first bucket that still has something; null: none has.
with settled as (
  update token_bucket b set settled_input = b.settled_input + s.input, settled_cached = b.settled_cached + s.cached,
    settled_output = b.settled_output + s.output, settled_nanos = b.settled_nanos + s.nanos
  from unnest($2, $3, $4, $5, $6, $7, $8) as s(bucket, model, version, input, cached, output, nanos)
  where b.customer = $1 and b.bucket = s.bucket and b.model = s.model and b.price_version = s.version)
update token_balance k set settled_nanos = k.settled_nanos + (select coalesce(sum(s.nanos), 0) from unnest($8) as s(nanos)),
  unsettled_from = $9, unsettled_since = case when $9 is not null then k.unsettled_since end
where k.customer = $1
