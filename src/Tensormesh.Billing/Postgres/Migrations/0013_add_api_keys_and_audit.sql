-- Keys with which machines act for an account, and who did what that a person may be asked about later.

create table api_key (
  id           text primary key check (id like 'key\_%'),
  account      text not null references account (id),
  name         text not null check (length(name) <= 100),
  scopes       text[] not null check (cardinality(scopes) >= 1),
  -- SHA-256 of the key. A key has 256 random bits, which nobody guesses, so that a slow hash would add nothing.
  hash         bytea not null unique check (length(hash) = 32),
  -- The caller and its idempotency key: one request makes one key.
  request_key  text not null unique,
  created_at   timestamptz not null,
  expires_at   timestamptz check (expires_at > created_at),
  -- Kept, so that the audit log's names of keys go on meaning something.
  deleted_at   timestamptz check (deleted_at >= created_at)
);
create index api_key_by_account on api_key (account, created_at);

-- A row is written by the SQL transaction of what it tells of: neither is there without the other.
create table audit_event (
  position    bigint generated always as identity primary key,
  created_at  timestamptz not null default clock_timestamp(),
  actor       text not null,
  role        text not null,
  api_key     text,
  trace_id    text,
  action      text not null,
  account     text not null,
  -- What it was done to: a ledger transaction, a card, a key.
  resource    text,
  details     jsonb not null
);
create index audit_event_by_account on audit_event (account, position);
create index audit_event_by_actor on audit_event (actor, position);
create trigger append_only before update or delete or truncate on audit_event for each statement execute function refuse_change();
