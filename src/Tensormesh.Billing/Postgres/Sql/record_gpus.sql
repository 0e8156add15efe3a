-- Idempotent by pod: what was recorded first stays. Reads run_interval without a lock that anyone else who writes it would wait for.
-- $1: a pod for each UUID, $2: the UUIDs.
with recorded as (
  insert into run_interval_gpus (pod, uuids)
  select r.pod, g.uuids
  from (select pod, array_agg(uuid order by ordinal) as uuids
    from unnest($1::uuid[], $2::text[]) with ordinality as h(pod, uuid, ordinal) group by pod) g
  join run_interval r on r.pod = g.pod
  order by r.pod
  on conflict (pod) do nothing
  returning pod, uuids
)
insert into gpu_holder (pod, uuid, held_until)
select distinct n.pod, u.uuid, coalesce(r.ended_at, 'infinity')
from recorded n cross join unnest(n.uuids) as u(uuid) join run_interval r on r.pod = n.pod
