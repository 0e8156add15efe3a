-- Grants that expired and are not done with, the first to expire first. $1: now, $2: how many.
select a.account, t.id, t.position, (t.details ->> 'expiresAt')::timestamptz as expires_at
from ledger_transaction t join ledger_account a on a.id = t.customer
where t.type = 'CreditGrant' and t.details ? 'expiresAt' and (t.details ->> 'expiresAt')::timestamptz <= $1
  and not exists (select from expired_grant x where x.grant_position = t.position)
order by 4, 3
limit $2
