-- The newest version of each book and product that is not withdrawn; of several books, the newest.
select distinct on (item) id, item, per_gpu_hour_nanos, effective_at
from (
  select distinct on (book, item) id, item, per_gpu_hour_nanos, effective_at, withdrawn
  from price_version where kind = 'gpu' order by book, item, effective_at desc, id desc) newest
where not withdrawn
order by item, effective_at desc, id desc
