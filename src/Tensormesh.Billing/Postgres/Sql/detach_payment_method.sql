-- Another card takes the place of a default that goes: the one that is valid longest. Called under the lock of the account row.
-- $1: account, $2: payment method id, $3: now.
with detached as (
  update payment_method set detached_at = greatest($3, attached_at), is_default = false
  where account = $1 and payment_method_id = $2 and detached_at is null
  returning id
), heir as (
  select p.id from payment_method p
  where p.account = $1 and p.detached_at is null and p.payment_method_id <> $2
  order by p.is_default desc, p.exp_year desc, p.exp_month desc, p.id desc limit 1
), promoted as (
  update payment_method set is_default = true where id = (select id from heir) and exists (select from detached) and not is_default
)
select count(*) from detached
