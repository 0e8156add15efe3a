-- A month's statement, once closed, never changes. It is frozen by position: what was posted by then belongs to it, and what comes later for the
-- same month is a correction in the statement that is open. Each transaction is on exactly one statement.

create table statement (
  account                text not null references account (id),
  month                  date not null check (extract(day from month) = 1),
  time_zone              text not null,
  period_start           timestamptz not null,
  period_end             timestamptz not null check (period_end > period_start),
  -- On it are the transactions from from_position to closing_position that took effect by period_end; of those up to opening_position only
  -- what took effect after period_start, the rest being on a statement before. (A usage window belongs where it ends.)
  from_position          bigint not null,
  opening_position       bigint not null,
  closing_position       bigint not null check (closing_position >= opening_position),
  -- The first that was there and belongs to a later month; null: none was.
  carried_from           bigint,
  opening_balance_nanos  bigint not null,
  closing_balance_nanos  bigint not null,
  lines                  jsonb not null,
  previous_hash          text not null,
  hash                   text not null,
  closed_at              timestamptz not null default clock_timestamp(),
  primary key (account, month)
);
create trigger append_only before update or delete or truncate on statement for each statement execute function refuse_change();
