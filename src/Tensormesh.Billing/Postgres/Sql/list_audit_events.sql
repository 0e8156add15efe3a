-- $1: before position or null, $2: limit, $3: account or null, $4: actor or null, $5: action or null.
select position, created_at, actor, role, api_key, trace_id, action, account, resource, details::text
from audit_event
where position < coalesce($1::bigint, 9223372036854775807) and ($3::text is null or account = $3) and ($4::text is null or actor = $4)
  and ($5::text is null or action = $5)
order by position desc
limit $2
