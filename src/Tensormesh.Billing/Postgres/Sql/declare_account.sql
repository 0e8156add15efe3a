-- Opens an account with its ledger account and its balance row, or records a changed policy; no row when nothing changed.
-- $1: id, $2: display name, $3: low balance alert, $4: card grace seconds, $5: time zone.
with declared as (
  insert into account (id, display_name, low_balance_nanos, card_grace_seconds, time_zone) values ($1, $2, $3, $4, $5)
  on conflict (id) do update set
    display_name = excluded.display_name, low_balance_nanos = excluded.low_balance_nanos,
    card_grace_seconds = excluded.card_grace_seconds, time_zone = excluded.time_zone
  where (account.display_name, account.low_balance_nanos, account.card_grace_seconds, account.time_zone)
    is distinct from (excluded.display_name, excluded.low_balance_nanos, excluded.card_grace_seconds, excluded.time_zone)
  returning id
), opened as (
  insert into ledger_account (name, account) select 'customer:' || id, id from declared
  on conflict (name) do nothing
  returning id
), balance as (
  insert into ledger_balance (ledger_account) select id from opened
)
select id from declared
