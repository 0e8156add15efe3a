-- The first total of tokens that is not what it must be: a meter that its quarters do not add up to, in tokens or in what is due for it; a customer's total that its
-- meters do not add up to; what the ledger was told that it does not have. What, whose, expected, found.
select f.what, coalesce(a.name, '?' || f.customer), f.expected, f.found from (
  select 'tokens of ' || model || ' at price version ' || price_version as what, customer,
    format('%s events, %s/%s/%s', m.events, m.input_tokens, m.cached_tokens, m.output_tokens) as expected,
    format('%s events, %s/%s/%s', b.events, b.input_tokens, b.cached_tokens, b.output_tokens) as found, 1 as place
  from token_meter m full join (
    select customer, model, price_version, sum(events)::bigint as events, sum(input_tokens)::bigint as input_tokens, sum(cached_tokens)::bigint as cached_tokens,
      sum(output_tokens)::bigint as output_tokens
    from token_bucket where price_version <> 0 group by 1, 2, 3) b using (customer, model, price_version)
  where (m.events, m.input_tokens, m.cached_tokens, m.output_tokens) is distinct from (b.events, b.input_tokens, b.cached_tokens, b.output_tokens)
  union all
  select 'cost of ' || m.model || ' at price version ' || m.price_version, m.customer,
    tokens_due(m.input_tokens, m.cached_tokens, m.output_tokens, p.input_per_million_nanos, p.cached_per_million_nanos, p.output_per_million_nanos)::text,
    b.nanos::text, 2
  from token_meter m join price_version p on p.id = m.price_version join lateral (
    select sum(b.cost_nanos) as nanos from token_bucket b where b.customer = m.customer and b.model = m.model and b.price_version = m.price_version) b on true
  where p.item <> m.model or b.nanos is distinct from tokens_due(m.input_tokens, m.cached_tokens, m.output_tokens,
    p.input_per_million_nanos, p.cached_per_million_nanos, p.output_per_million_nanos)
  union all
  select 'totals of tokens', k.customer, format('%s due, %s settled', coalesce(b.cost, 0), coalesce(t.nanos, 0)),
    format('%s due, %s settled, %s in quarters', k.rated_nanos, k.settled_nanos, coalesce(b.settled, 0)), 3
  from (select customer from token_balance union select customer from ledger_transaction where type = 'ServerlessUsage') c(customer)
  left join token_balance k on k.customer = c.customer
  left join (select customer, sum(cost_nanos) as cost, sum(settled_nanos) as settled from token_bucket group by 1) b on b.customer = c.customer
  left join (
    select t.customer, -sum(e.amount) as nanos from ledger_transaction t cross join lateral unnest(t.accounts, t.amounts) as e(account, amount)
    where t.type = 'ServerlessUsage' and e.account = t.customer group by 1) t on t.customer = c.customer
  where (k.rated_nanos, k.settled_nanos, k.settled_nanos) is distinct from (coalesce(b.cost, 0)::bigint, coalesce(b.settled, 0)::bigint, coalesce(t.nanos, 0)::bigint)
  union all
  select 'serverless usage of ' || to_char(m.month, 'YYYY-MM'), m.customer, coalesce(t.nanos, 0)::text, m.nanos::text, 4
  from (select customer, month, sum(amount_nanos) as nanos from serverless_month_model group by 1, 2) m
  full join (
    select t.customer, date_trunc('month', (t.details ->> 'day')::date)::date as month, -sum(e.amount) as nanos
    from ledger_transaction t cross join lateral unnest(t.accounts, t.amounts) as e(account, amount)
    where t.type = 'ServerlessUsage' and e.account = t.customer group by 1, 2) t using (customer, month)
  where m.nanos is distinct from t.nanos) f
left join ledger_account a on a.id = f.customer
order by f.place, 2, 1
limit 1
