-- The charges on a statement in the columns of FOCUS 1.2, oldest first, of serverless usage a row for each model and price: those that every provider must have, in alphabetical order, then some of those
-- that a provider may have, then ours (x_). {customer}: id; the rest in braces is of the statement.
select
  c.cost as "BilledCost", '{account}' as "BillingAccountId", a.display_name as "BillingAccountName", c.currency as "BillingCurrency",
  '{periodEnd}' as "BillingPeriodEnd", '{periodStart}' as "BillingPeriodStart", c.category as "ChargeCategory", c.class as "ChargeClass",
  c.description as "ChargeDescription", c.period_end as "ChargePeriodEnd", c.period_start as "ChargePeriodStart", c.cost as "ContractedCost",
  c.cost as "EffectiveCost", 'Tensormesh' as "InvoiceIssuerName", c.cost as "ListCost",
  case when c.category = 'Usage' then c.quantity end as "PricingQuantity", case when c.category = 'Usage' then c.unit end as "PricingUnit",
  'Tensormesh' as "ProviderName", 'Tensormesh' as "PublisherName", 'AI and Machine Learning' as "ServiceCategory",
  case when c.type = 'ServerlessUsage' then 'Serverless Inference' else 'GPU Deployments' end as "ServiceName",
  'Usage-Based' as "ChargeFrequency",
  case when c.category = 'Usage' then c.unit_price end as "ContractedUnitPrice", case when c.category = 'Usage' then c.unit_price end as "ListUnitPrice",
  'Standard' as "PricingCategory", c.deployment as "ResourceId", c.deployment_name as "ResourceName",
  case when c.type = 'ServerlessUsage' then 'ServerlessModel' else 'GpuDeployment' end as "ResourceType",
  c.product as "SkuId", c.price_version as "SkuPriceId", c.namespace as "SubAccountId", c.namespace as "SubAccountName",
  c.id as "x_TransactionId", c.type as "x_TransactionType"
from account a cross join lateral (
  select t.id, t.type, t.position, m.place, t.currency, t.description, -trim_scale(coalesce(-(m.model ->> 'amountNanos')::numeric, e.amount) / 1000000000) as cost,
    case when m.model is null then 'GPU Hours' else 'Tokens' end as unit,
    case when t.type = 'GpuFaultCredit' then 'Credit' else 'Usage' end as category,
    case when t.effective_at <= '{periodStart}' then 'Correction' end as class,
    coalesce(d.window_end, to_char(t.effective_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) as period_end,
    coalesce(d.window_start, to_char(t.effective_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) as period_start,
    coalesce(d.deployment, m.model ->> 'model') as deployment, coalesce(d.deployment_name, m.model ->> 'model') as deployment_name, d.namespace,
    coalesce(d.product, m.model ->> 'model') as product, coalesce(d.price_version, m.model ->> 'priceVersion') as price_version, trim_scale(d.per_gpu_hour / 1000000000) as unit_price,
    -- What was priced: GPU-hours, which the amount is the exact product of but for the last nano; or tokens, in and out, which have three prices.
    coalesce((m.model ->> 'inputTokens')::numeric + (m.model ->> 'outputTokens')::numeric, trim_scale(round(case when t.type = 'GpuUsageCorrection' then -1 else 1 end * d.gpus
      * extract(epoch from d.window_end::timestamptz - d.window_start::timestamptz) / 3600, 12))) as quantity
  from ledger_transaction t
  cross join lateral (select sum(e.amount) as amount from unnest(t.accounts, t.amounts) as e(account, amount) where e.account = t.customer) e
  cross join lateral jsonb_to_record(t.details) as r(deployment text, "deploymentName" text, namespace text, product text, gpus numeric,
    "windowStart" text, "windowEnd" text, "priceVersion" text, "perGpuHourNanos" numeric)
  cross join lateral (select r.deployment, r."deploymentName" as deployment_name, r.namespace, r.product, r.gpus, r."windowStart" as window_start,
    r."windowEnd" as window_end, r."priceVersion" as price_version, r."perGpuHourNanos" as per_gpu_hour) d
  left join lateral (select x.model, x.place from jsonb_array_elements(case when t.type = 'ServerlessUsage' then t.details -> 'models' end)
    with ordinality as x(model, place)) m on true
  where t.customer = {customer} and t.type = any (spending_types()) and t.position >= {fromPosition} and t.position <= {closingPosition}
    and t.effective_at <= '{periodEnd}' and (t.position > {openingPosition} or t.effective_at > '{periodStart}')) c
where a.id = '{account}'
order by c.position, c.place
