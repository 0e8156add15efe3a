-- What is settled for a deployment comes out of its hold first. $1: deployments, $2: nanos settled for each.
update credit_hold h set remaining_nanos = greatest(0, h.remaining_nanos - d.amount)
from unnest($1::uuid[], $2::bigint[]) as d(deployment, amount)
where h.deployment = d.deployment
