-- Which operator may write. The leader takes the next epoch when it gets the lease; whoever took an earlier one is refused, so that
-- an operator that was paused for a minute and still believes that it leads changes nothing. One row.
create table operator_epoch (
  one       boolean primary key default true check (one),
  epoch     bigint not null,
  holder    text not null,
  taken_at  timestamptz not null default clock_timestamp()
);
insert into operator_epoch (epoch, holder) values (0, 'nobody');
