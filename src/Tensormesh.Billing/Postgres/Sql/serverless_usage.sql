-- What a customer used of serverless models after one instant and up to another, which are both the first of a day: by model and price version, and then by the
-- day of a time zone, in one look. What has no price yet has version 0, and no rates. $1: account, $2: after, $3: up to, $4: time zone.
with used as (
  select b.model, b.price_version, (b.bucket at time zone $4)::date as day, sum(b.events)::bigint as events, sum(b.input_tokens)::bigint as input,
    sum(b.cached_tokens)::bigint as cached, sum(b.output_tokens)::bigint as output, sum(b.cost_nanos)::bigint as cost, sum(b.settled_nanos)::bigint as settled
  from ledger_account l join token_bucket b on b.customer = l.id
  where l.account = $1 and b.bucket >= $2 and b.bucket < $3
  group by grouping sets ((b.model, b.price_version), ((b.bucket at time zone $4)::date)))
select u.day, u.model, u.events, u.input, u.cached, u.output, u.cost, u.settled,
  p.input_per_million_nanos, p.output_per_million_nanos, p.cached_per_million_nanos
from used u left join price_version p on p.id = u.price_version
order by u.day nulls first, u.model, u.price_version
