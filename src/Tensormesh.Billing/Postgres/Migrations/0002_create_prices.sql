-- Prices. A row is written once and never changed, because every charge names the row that priced it: any past
-- bill can be computed again.

create table price_version (
  id                        bigint generated always as identity primary key,
  book                      text not null,
  kind                      text not null check (kind in ('gpu', 'token')),
  -- The GPU product, or the model.
  item                      text not null check (item <> ''),
  -- Nothing new starts on an item whose newest version in its book is withdrawn.
  withdrawn                 boolean not null default false,
  per_gpu_hour_nanos        bigint check (per_gpu_hour_nanos >= 0),
  input_per_million_nanos   bigint check (input_per_million_nanos >= 0),
  output_per_million_nanos  bigint check (output_per_million_nanos >= 0),
  cached_per_million_nanos  bigint check (cached_per_million_nanos >= 0),
  effective_at              timestamptz not null,
  created_at                timestamptz not null default clock_timestamp(),
  check (withdrawn or (kind = 'gpu') = (per_gpu_hour_nanos is not null)),
  check (withdrawn or (kind = 'token') = (num_nonnulls(input_per_million_nanos, output_per_million_nanos, cached_per_million_nanos) = 3)),
  check (not withdrawn or num_nonnulls(per_gpu_hour_nanos, input_per_million_nanos, output_per_million_nanos, cached_per_million_nanos) = 0)
);
create index price_version_by_item on price_version (kind, item, effective_at desc, id desc);

create trigger append_only before update or delete or truncate on price_version for each statement execute function refuse_change();
