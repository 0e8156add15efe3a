insert into statement (account, month, time_zone, period_start, period_end, from_position, opening_position, closing_position, carried_from,
  opening_balance_nanos, closing_balance_nanos, lines, previous_hash, hash)
values ($1, $2, $3, $4, $5, $6, $7, $8, (
    select min(t.position) from ledger_transaction t join ledger_account l on l.id = t.customer
    where l.account = $1 and t.position >= $6 and t.position <= $8 and t.effective_at > $5),
  $9, $10, $11, $12, $13)
returning carried_from, closed_at
