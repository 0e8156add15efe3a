-- A customer's token totals, locked for the rest of the SQL transaction. $1: account.
select k.customer, k.rated_nanos, k.settled_nanos, k.unsettled_from, k.accepted_at, k.traceparent
from ledger_account l join token_balance k on k.customer = l.id
where l.account = $1
for update of k
