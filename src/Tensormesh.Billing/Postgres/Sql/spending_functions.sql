-- The first instant of a day in a time zone: also of a day that has no midnight, because clocks go forward then, or has two.
create or replace function day_start(p_day date, p_zone text) returns timestamptz language sql stable as $$
  select case when ((d.midnight - interval '1 hour') at time zone p_zone)::date = p_day then d.midnight - interval '1 hour' else d.midnight end
  from (select p_day::timestamp at time zone p_zone as midnight) d
$$;

-- What was spent after one instant and up to another, in nanos: whole days, quarters of an hour before and after them, and the transactions of
-- what is then too much or too little at either end. Exact at every instant. Where both are instants at which a quarter begins no transaction is looked at,
-- and up to now none but what takes effect later than now: there is hardly ever any.
create or replace function spent(p_customer bigint, p_after timestamptz, p_until timestamptz, p_types text[]) returns bigint language plpgsql stable as $$
declare
  c_origin constant timestamptz := timestamptz '2000-01-01 00:00Z';
  v_first timestamptz := date_bin('15 minutes', p_after + interval '15 minutes' - interval '1 microsecond', c_origin);
  v_last timestamptz := date_bin('15 minutes', p_until + interval '15 minutes' - interval '1 microsecond', c_origin);
  v_first_day timestamptz := date_bin('1 day', v_first + interval '1 day' - interval '1 microsecond', c_origin);
  v_last_day timestamptz := date_bin('1 day', v_last, c_origin);
begin
  if p_until <= p_after then
    return 0;
  end if;
  if v_first_day >= v_last_day then
    v_first_day := v_last;
    v_last_day := v_last;
  end if;
  return coalesce((
      select sum(b.amount_nanos) from spending_bucket b
      where b.customer = p_customer and b.is_day and b.bucket >= v_first_day and b.bucket < v_last_day and b.type = any (p_types)), 0)
    + coalesce((
      select sum(b.amount_nanos) from spending_bucket b
      where b.customer = p_customer and not b.is_day and b.bucket >= v_first and b.bucket < v_first_day and b.type = any (p_types)), 0)
    + coalesce((
      select sum(b.amount_nanos) from spending_bucket b
      where b.customer = p_customer and not b.is_day and b.bucket >= v_last_day and b.bucket < v_last and b.type = any (p_types)), 0)
    + case when v_first > p_after then spent_by_transaction(p_customer, p_after, v_first, p_types) else 0 end
    - case when v_last > p_until then spent_by_transaction(p_customer, p_until, v_last, p_types) else 0 end;
end $$;

create or replace function spent_by_transaction(p_customer bigint, p_after timestamptz, p_until timestamptz, p_types text[]) returns bigint language sql stable as $$
  select coalesce(-sum(e.amount), 0)::bigint
  from ledger_transaction t cross join lateral unnest(t.accounts, t.amounts) as e(account, amount)
  where t.customer = p_customer and t.effective_at > p_after and t.effective_at <= p_until and e.account = p_customer
    and t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit', 'ServerlessUsage') and t.type = any (p_types)
$$;

-- What counts as spending, and which of it is GPU time.
create or replace function spending_types() returns text[] language sql immutable as $$
  select array['GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit', 'ServerlessUsage']
$$;
create or replace function gpu_spending_types() returns text[] language sql immutable as $$
  select array['GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit']
$$;

-- The first position of the ledger that was created at an instant or later; null for no instant. Positions are given out in the order of time,
-- but for what a clock that is set back does: whoever asks leaves room for that, and looks at created_at.
create or replace function position_at(p_at timestamptz) returns bigint language plpgsql stable as $$
declare
  v_low bigint;
  v_high bigint;
  v_position bigint;
  v_created_at timestamptz;
begin
  if p_at is null then
    return null;
  end if;
  select coalesce(min(position), 0), coalesce(max(position), -1) + 1 into v_low, v_high from ledger_transaction;
  while v_low < v_high loop
    select t.position, t.created_at into v_position, v_created_at from ledger_transaction t
      where t.position >= v_low + (v_high - v_low) / 2 order by t.position limit 1;
    if v_created_at >= p_at then
      v_high := v_low + (v_high - v_low) / 2;
    else
      v_low := v_position + 1;
    end if;
  end loop;
  return v_low;
end $$;
