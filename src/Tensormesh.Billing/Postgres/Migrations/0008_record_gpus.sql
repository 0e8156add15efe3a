-- Which GPUs a pod's hold is on: the evidence of what it was charged, and the way from a faulty GPU to the runs whose charge it ends.
-- Tables of their own, because every settlement updates run_interval, and would have to write these indexes again each time.

create table run_interval_gpus (
  pod    uuid primary key references run_interval (pod),
  -- GPUs or MIG instances, in the order in which the pod has them.
  uuids  text[] not null check (cardinality(uuids) between 1 and 64 and array_position(uuids, '') is null and array_position(uuids, null) is null)
);
create trigger append_only before update or delete or truncate on run_interval_gpus for each statement execute function refuse_change();

-- The same by GPU. A GPU has had thousands of runs; those that a fault concerns are the last few, which the index finds without the others.
create table gpu_holder (
  pod         uuid not null references run_interval_gpus (pod),
  uuid        text not null,
  -- The run's ended_at. It may stay infinite where a run ended in the moment in which its GPUs were told: whoever asks looks at the run itself.
  held_until  timestamptz not null default 'infinity',
  primary key (pod, uuid)
);
create index gpu_holder_by_uuid on gpu_holder (uuid, held_until) include (pod);
