-- The first card becomes the default. Called under the lock of the account row.
insert into payment_method (account, payment_method_id, provider, brand, last4, exp_month, exp_year, attached_at, is_default)
select $1, $2, $3, $4, $5, $6, $7, $8,
  not exists (select from payment_method p where p.account = $1 and p.detached_at is null and p.is_default)
on conflict (account, payment_method_id) where detached_at is null do nothing
