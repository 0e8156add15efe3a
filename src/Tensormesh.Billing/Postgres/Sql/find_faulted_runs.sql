-- The runs that held a faulty GPU and are, or may yet be, charged past where it was last seen well. What is ended or stopped is settled to
-- its chargeable end. For each UUID, $1: the number of its fault, $2: the UUID, $3: until when the GPU was seen well, $4: when it recovered, or null.
select distinct r.account, r.pod, r.started_at, f.fault
from unnest($1::int[], $2::text[], $3::timestamptz[], $4::timestamptz[]) as f(fault, uuid, healthy_until, recovered_at)
join gpu_holder g on g.uuid = f.uuid and g.held_until > f.healthy_until
join run_interval r on r.pod = g.pod
where (f.recovered_at is null or r.started_at < f.recovered_at)
  and ((r.ended_at is null and r.charge_until is null) or r.settled_until > greatest(r.started_at, f.healthy_until))
