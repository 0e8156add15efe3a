-- Metering of tokens: events in, running totals and prices out, in one SQL transaction for each batch.

-- What is due for a running total, in nanos: (input - cached) x input rate + cached x cached rate + output x output rate, rounded down. Rates are
-- nanos per million tokens. The same as TokenRating.Due.
create or replace function tokens_due(
  p_input numeric, p_cached numeric, p_output numeric, p_input_rate bigint, p_cached_rate bigint, p_output_rate bigint)
returns bigint language sql immutable as $$
  select div((p_input - p_cached) * p_input_rate + p_cached * p_cached_rate + p_output * p_output_rate, 1000000)::bigint
$$;

-- Which version prices a model from when until when. As for GPU time (PriceHistory.InForce): of each book the newest by then, of those not withdrawn
-- the newest; after a withdrawal the last price; before there was any price the first. A model that never had a price has no row.
create or replace function token_price_ranges(p_models text[])
returns table (model text, starts timestamptz, ends timestamptz, version bigint) language sql stable rows 20 as $$
  with v as materialized (
    select p.item, p.book, p.id, p.withdrawn, p.effective_at from price_version p where p.kind = 'token' and p.item = any (p_models)),
  t as (select distinct v.item, v.effective_at from v),
  r as (
    select t.item, t.effective_at, lead(t.effective_at) over w as ends, row_number() over w as n,
      coalesce(
        (select b.id from (
            select distinct on (v.book) v.* from v where v.item = t.item and v.effective_at <= t.effective_at
            order by v.book, v.effective_at desc, v.id desc) b
          where not b.withdrawn order by b.effective_at desc, b.id desc limit 1),
        (select v.id from v where v.item = t.item and v.effective_at <= t.effective_at and not v.withdrawn order by v.effective_at desc, v.id desc limit 1),
        (select v.id from v where v.item = t.item and not v.withdrawn order by v.effective_at, v.id limit 1)) as version
    from t window w as (partition by t.item order by t.effective_at))
  select r.item, case when r.n = 1 then '-infinity' else r.effective_at end, coalesce(r.ends, 'infinity'), r.version from r where r.version is not null
$$;

-- Makes the partition of a day, without stopping those who write to others.
create or replace function ensure_usage_day(p_day date) returns void language plpgsql as $$
declare
  v_name text := 'usage_event_' || to_char(p_day, 'YYYYMMDD');
begin
  -- Asked of the catalog's rows: to_regclass remembers that there was none, and another may have made it while this waited.
  if exists (select from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'usage_event'::regclass and c.relname = v_name) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtext('tensormesh.usage_days'), hashtext(current_schema()));
  if not exists (select from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'usage_event'::regclass and c.relname = v_name) then
    execute format('create table %I (like usage_event including defaults including constraints including indexes)', v_name);
    execute format('alter table usage_event attach partition %I for values from (%L) to (%L)', v_name, p_day, p_day + 1);
  end if;
end $$;

-- Drops the partitions of the days before an instant, and says how many those were. Whoever reads events is waited for, but not for long.
create or replace function drop_usage_days(p_before date) returns int language plpgsql set lock_timeout = '2s' as $$
declare
  v_name text;
  v_dropped int := 0;
begin
  for v_name in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'usage_event'::regclass and c.relname < 'usage_event_' || to_char(p_before, 'YYYYMMDD') order by 1
  loop
    execute format('drop table %I', v_name);
    v_dropped := v_dropped + 1;
  end loop;
  return v_dropped;
end $$;

-- Adds usage, summed by account, model, price version and quarter of an hour, to the running totals, and gives every quarter its share of what becomes
-- due: in the order of time, so that the shares add up to it. Two that change one customer's come one after the other, in the order of customers.
-- Gives back each customer with what the ledger has of its money, less what it owes for tokens.
create or replace function rate_usage(
  p_now timestamptz, p_traceparent text, p_customers bigint[], p_models text[], p_versions bigint[], p_buckets timestamptz[], p_events bigint[],
  p_input bigint[], p_cached bigint[], p_output bigint[], p_last_at timestamptz[])
returns table (customer bigint, funds bigint) language plpgsql set plan_cache_mode = force_custom_plan as $$
begin
  insert into token_balance (customer) select distinct c.id from unnest(p_customers) as c(id) order by 1 on conflict do nothing;
  perform 1 from token_balance b where b.customer = any (p_customers) order by b.customer for update;

  return query
  with added as materialized (
    select g.customer, g.model, g.version, g.bucket, g.events, g.input, g.cached, g.output, g.last_at
    from unnest(p_customers, p_models, p_versions, p_buckets, p_events, p_input, p_cached, p_output, p_last_at)
      as g(customer, model, version, bucket, events, input, cached, output, last_at)),
  metered as (
    insert into token_meter as m (customer, model, price_version, events, input_tokens, cached_tokens, output_tokens)
    select g.customer, g.model, g.version, sum(g.events), sum(g.input), sum(g.cached), sum(g.output)
    from added g where g.version <> 0 group by 1, 2, 3 order by 1, 2, 3
    on conflict on constraint token_meter_pkey do update set events = m.events + excluded.events, input_tokens = m.input_tokens + excluded.input_tokens,
      cached_tokens = m.cached_tokens + excluded.cached_tokens, output_tokens = m.output_tokens + excluded.output_tokens
    returning m.customer, m.model, m.price_version, m.input_tokens, m.cached_tokens, m.output_tokens),
  -- The running total after each quarter: what the meter has now, less what comes later in this batch.
  running as (
    select g.*, m.customer is not null as priced,
      coalesce(m.input_tokens, 0) - sum(g.input) over later + g.input as total_input,
      coalesce(m.cached_tokens, 0) - sum(g.cached) over later + g.cached as total_cached,
      coalesce(m.output_tokens, 0) - sum(g.output) over later + g.output as total_output
    from added g left join metered m on m.customer = g.customer and m.model = g.model and m.price_version = g.version
    window later as (partition by g.customer, g.model, g.version order by g.bucket desc)),
  costed as materialized (
    select r.*, case when r.priced then
        tokens_due(r.total_input, r.total_cached, r.total_output, p.input_per_million_nanos, p.cached_per_million_nanos, p.output_per_million_nanos)
        - tokens_due(r.total_input - r.input, r.total_cached - r.cached, r.total_output - r.output,
          p.input_per_million_nanos, p.cached_per_million_nanos, p.output_per_million_nanos)
      else 0 end as cost
    from running r left join price_version p on p.id = r.version),
  bucketed as (
    insert into token_bucket as b (customer, bucket, model, price_version, events, input_tokens, cached_tokens, output_tokens, cost_nanos, last_at)
    select c.customer, c.bucket, c.model, c.version, c.events, c.input, c.cached, c.output, c.cost, c.last_at
    from costed c order by 1, 2, 3, 4
    on conflict on constraint token_bucket_pkey do update set events = b.events + excluded.events, input_tokens = b.input_tokens + excluded.input_tokens,
      cached_tokens = b.cached_tokens + excluded.cached_tokens, output_tokens = b.output_tokens + excluded.output_tokens,
      cost_nanos = b.cost_nanos + excluded.cost_nanos, last_at = greatest(b.last_at, excluded.last_at))
  update token_balance b set
    rated_nanos = b.rated_nanos + d.cost,
    unsettled_from = least(b.unsettled_from, d.first),
    unsettled_since = case when d.first is null then b.unsettled_since else coalesce(b.unsettled_since, p_now) end,
    accepted_at = case when d.cost > 0 then greatest(b.accepted_at, p_now) else b.accepted_at end,
    traceparent = case when d.cost > 0 then p_traceparent else b.traceparent end
  from (select c.customer, sum(c.cost)::bigint as cost, min(c.bucket) filter (where c.priced) as first from costed c group by 1) d
  where b.customer = d.customer
  returning b.customer,
    coalesce((select l.amount_nanos from ledger_balance l where l.ledger_account = b.customer), 0) - (b.rated_nanos - b.settled_nanos);
end $$;

-- Takes a batch of events of known accounts, whose days are there, in the order of day, source and id, none twice. One row: the places (from 0) of events that were there
-- before, and whether each is the same event again; the customers whose usage was counted with what is left of their money; and the models without a price, with
-- how many events of each. p_fresh: none of them is expected to be there, which is tried first, because Postgres then writes a row in half the time.
create or replace function ingest_usage(
  p_now timestamptz, p_traceparent text, p_fresh boolean, p_days date[], p_sources text[], p_ids text[], p_customers bigint[], p_models text[], p_at timestamptz[],
  p_input bigint[], p_cached bigint[], p_output bigint[], p_request_ids text[], p_api_key_ids text[],
  out known int[], out same boolean[], out customers bigint[], out funds bigint[], out unpriced_models text[], out unpriced_events bigint[])
language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
  c_origin constant timestamptz := timestamptz '2000-01-01 00:00Z';
  v_written boolean := false;
  v_customers bigint[]; v_models text[]; v_versions bigint[]; v_buckets timestamptz[]; v_events bigint[];
  v_input bigint[]; v_cached bigint[]; v_output bigint[]; v_last_at timestamptz[];
begin
  -- As whoever opens a run: no price changes between looking it up and the commit, and whoever publishes one finds all that had none.
  perform pg_advisory_xact_lock_shared(hashtext('tensormesh.prices'), hashtext(current_schema()));

  if p_fresh then
    begin
      insert into usage_event (day, source, id, customer, model, at, input_tokens, cached_tokens, output_tokens, request_id, api_key_id, received_at)
      select e.*, p_now from unnest(p_days, p_sources, p_ids, p_customers, p_models, p_at, p_input, p_cached, p_output, p_request_ids, p_api_key_ids) as e;
      v_written := true;
    exception when unique_violation then
      -- Put back: the other way it is then.
    end;
  end if;
  if not v_written then
    with sent as materialized (
      select * from unnest(p_days, p_sources, p_ids, p_customers, p_models, p_at, p_input, p_cached, p_output, p_request_ids, p_api_key_ids)
        with ordinality as e(day, source, id, customer, model, at, input, cached, output, request_id, api_key_id, place)),
    inserted as (
      insert into usage_event (day, source, id, customer, model, at, input_tokens, cached_tokens, output_tokens, request_id, api_key_id, received_at)
      select s.day, s.source, s.id, s.customer, s.model, s.at, s.input, s.cached, s.output, s.request_id, s.api_key_id, p_now from sent s
      on conflict (day, source, id) do nothing
      returning usage_event.day, usage_event.source, usage_event.id)
    select array_agg(s.place::int - 1 order by s.place) into known
      from sent s left join inserted i on i.day = s.day and i.source = s.source and i.id = s.id where i.id is null;
  end if;

  select array_agg(p.customer), array_agg(p.model), array_agg(p.version), array_agg(p.bucket), array_agg(p.events), array_agg(p.input),
      array_agg(p.cached), array_agg(p.output), array_agg(p.last_at)
    into v_customers, v_models, v_versions, v_buckets, v_events, v_input, v_cached, v_output, v_last_at
    from (
      select e.customer, e.model, coalesce(r.version, 0) as version, date_bin('15 minutes', e.at - interval '1 microsecond', c_origin) as bucket,
        count(*) as events, sum(e.input)::bigint as input, sum(e.cached)::bigint as cached, sum(e.output)::bigint as output, max(e.at) as last_at
      from unnest(p_customers, p_models, p_at, p_input, p_cached, p_output) with ordinality as e(customer, model, at, input, cached, output, place)
      left join token_price_ranges(array(select distinct m.model from unnest(p_models) as m(model))) r
        on r.model = e.model and e.at >= r.starts and e.at < r.ends
      where known is null or not exists (select from unnest(known) as k(place) where k.place = e.place - 1)
      group by 1, 2, 3, 4) p;

  if v_customers is not null then
    select array_agg(r.customer), array_agg(r.funds) into customers, funds
      from rate_usage(p_now, p_traceparent, v_customers, v_models, v_versions, v_buckets, v_events, v_input, v_cached, v_output, v_last_at) r;
    select array_agg(u.model), array_agg(u.events) into unpriced_models, unpriced_events from (
      select g.model, sum(g.events)::bigint as events from unnest(v_models, v_versions, v_events) as g(model, version, events) where g.version = 0 group by 1) u;
  end if;

  -- A retry may carry a fresh time, and is the same event.
  if known is not null then
    select array_agg(e.customer = p_customers[k.place + 1] and e.model = p_models[k.place + 1] and e.input_tokens = p_input[k.place + 1]
        and e.cached_tokens = p_cached[k.place + 1] and e.output_tokens = p_output[k.place + 1] order by k.place)
      into same
      from unnest(known) as k(place) join usage_event e
        on e.day = p_days[k.place + 1] and e.source = p_sources[k.place + 1] and e.id = p_ids[k.place + 1];
  end if;
end $$;

-- Prices what was used of a model before it had a price: at the first that it gets. Called under the lock under which prices are published.
create or replace function price_unpriced_usage(p_now timestamptz, p_model text, p_version bigint)
returns table (customer bigint, funds bigint) language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
  v_customers bigint[]; v_buckets timestamptz[]; v_events bigint[]; v_input bigint[]; v_cached bigint[]; v_output bigint[]; v_last_at timestamptz[];
begin
  perform 1 from token_balance b where b.customer in (select u.customer from token_bucket u where u.model = p_model and u.price_version = 0)
    order by b.customer for update;
  with taken as (
    delete from token_bucket u where u.model = p_model and u.price_version = 0
    returning u.customer, u.bucket, u.events, u.input_tokens, u.cached_tokens, u.output_tokens, u.last_at)
  select array_agg(t.customer), array_agg(t.bucket), array_agg(t.events), array_agg(t.input_tokens), array_agg(t.cached_tokens), array_agg(t.output_tokens),
      array_agg(t.last_at)
    into v_customers, v_buckets, v_events, v_input, v_cached, v_output, v_last_at from taken t;
  if v_customers is null then
    return;
  end if;
  return query select r.customer, r.funds from rate_usage(p_now, null, v_customers,
    array_fill(p_model, array[cardinality(v_customers)]), array_fill(p_version, array[cardinality(v_customers)]),
    v_buckets, v_events, v_input, v_cached, v_output, v_last_at) r;
end $$;

-- What the ledger has of a customer's serverless usage of a month, as the row of a list.
create or replace function serverless_month_row(p_customer bigint, p_month date, out amount bigint, out description text, out details jsonb) language sql stable as $$
  select -sum(m.amount_nanos)::bigint, 'Serverless usage of ' || to_char(p_month, 'FMMonth YYYY'),
    jsonb_build_object('month', to_char(p_month, 'YYYY-MM'), 'models', jsonb_agg(jsonb_build_object(
      'model', m.model, 'inputTokens', m.input_tokens, 'cachedTokens', m.cached_tokens, 'outputTokens', m.output_tokens, 'amountNanos', m.amount_nanos)
      order by m.amount_nanos desc, m.model))
  from serverless_month_model m where m.customer = p_customer and m.month = p_month
$$;

-- What tokens of the quarters from one instant on and before another cost that the ledger is not told of yet.
create or replace function unsettled_tokens(p_customer bigint, p_from timestamptz, p_before timestamptz) returns bigint language sql stable as $$
  select coalesce(sum(b.cost_nanos - b.settled_nanos), 0)::bigint
  from token_balance k join token_bucket b on b.customer = k.customer and b.bucket >= k.unsettled_from
  where k.customer = p_customer and b.bucket >= p_from and b.bucket < p_before
$$;

-- What a lower price for cached tokens saved in the quarters from one instant on and before another, in nanos: cached x (input rate - cached rate).
create or replace function tokens_saved(p_customer bigint, p_from timestamptz, p_before timestamptz) returns bigint language sql stable as $$
  select coalesce(sum(s.nanos), 0)::bigint from (
    select div(sum(b.cached_tokens) * (p.input_per_million_nanos - p.cached_per_million_nanos), 1000000) as nanos
    from token_bucket b join price_version p on p.id = b.price_version
    where b.customer = p_customer and b.bucket >= p_from and b.bucket < p_before and b.cached_tokens > 0
    group by p.id, b.model) s
$$;
