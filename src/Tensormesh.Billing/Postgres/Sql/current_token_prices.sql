-- The newest version of each book and model that is not withdrawn; of several books, the newest.
select distinct on (item) id, item, input_per_million_nanos, output_per_million_nanos, cached_per_million_nanos, effective_at
from (
  select distinct on (book, item) id, item, input_per_million_nanos, output_per_million_nanos, cached_per_million_nanos, effective_at, withdrawn
  from price_version where kind = 'token' order by book, item, effective_at desc, id desc) newest
where not withdrawn
order by item, effective_at desc, id desc
