-- The same by the day of a time zone. $1: account, $2: after, $3: up to, $4: time zone.
select (b.bucket at time zone $4)::date, sum(b.input_tokens)::bigint, sum(b.cached_tokens)::bigint, sum(b.output_tokens)::bigint, sum(b.cost_nanos)::bigint
from ledger_account l join token_bucket b on b.customer = l.id
where l.account = $1 and b.bucket >= $2 and b.bucket < $3
group by 1 order by 1
