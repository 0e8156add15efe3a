-- What was posted since the last look, in order. $1: the last position that was seen.
select t.position, t.type, t.idempotency_key, t.accounts, t.amounts, t.details->>'pod'
from ledger_transaction t where t.position > $1 order by t.position
