-- Idempotent by pod: what was recorded first stays. Reads run_interval without a lock that anyone else who writes it would wait for.
-- $1: a pod for each UUID, $2: the UUIDs.
insert into run_interval_gpus (pod, uuids)
select r.pod, g.uuids
from (select pod, array_agg(uuid order by ordinal) as uuids
  from unnest($1::uuid[], $2::text[]) with ordinality as h(pod, uuid, ordinal) group by pod) g
join run_interval r on r.pod = g.pod
order by r.pod
on conflict (pod) do nothing
