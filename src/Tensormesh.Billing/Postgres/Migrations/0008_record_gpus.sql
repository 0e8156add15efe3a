-- Which GPUs a pod's hold is on: the evidence of what it was charged, and the way from a faulty GPU to the runs whose charge it ends.
-- A table of its own, because every settlement updates run_interval, and would have to write this index again each time.

create table run_interval_gpus (
  pod    uuid primary key references run_interval (pod),
  -- GPUs or MIG instances, in the order in which the pod has them.
  uuids  text[] not null check (cardinality(uuids) between 1 and 64 and array_position(uuids, '') is null and array_position(uuids, null) is null)
);
create index run_interval_gpus_by_uuid on run_interval_gpus using gin (uuids) with (fastupdate = off);
create trigger append_only before update or delete or truncate on run_interval_gpus for each statement execute function refuse_change();
