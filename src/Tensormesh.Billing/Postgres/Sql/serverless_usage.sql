-- What a customer used of serverless models after one instant and up to another, which are both the first of a day, by model and price version; what has no
-- price yet has version 0, and no rates. $1: account, $2: after, $3: up to.
select b.model, b.price_version, sum(b.events)::bigint, sum(b.input_tokens)::bigint, sum(b.cached_tokens)::bigint, sum(b.output_tokens)::bigint,
  sum(b.cost_nanos)::bigint, sum(b.settled_nanos)::bigint, p.input_per_million_nanos, p.output_per_million_nanos, p.cached_per_million_nanos
from ledger_account l join token_bucket b on b.customer = l.id left join price_version p on p.id = b.price_version
where l.account = $1 and b.bucket >= $2 and b.bucket < $3
group by b.model, b.price_version, p.id
order by b.model, b.price_version
