-- What was answered to a request under a caller's idempotency key, for a day: where the same again would change nothing anyhow, so that the same key with
-- other content is found, and the same content has the same answer. (What moves money has its key in what it writes, for ever.)
create table remembered_request (
  caller       text not null,
  key          text not null,
  -- SHA-256 of what was asked.
  fingerprint  bytea not null check (length(fingerprint) = 32),
  -- Null: it is under way, or was never ended.
  answer       text,
  begun_at     timestamptz not null,
  primary key (caller, key)
);
create index remembered_request_by_time on remembered_request (begun_at);
