-- What the console needs besides what the API has: the newest runs of an account without reading all of them, the address on its statements,
-- and the keys of sign-in cookies, so that every server opens what another one sealed.

create index run_interval_newest on run_interval (account, started_at desc, pod desc);

create table billing_address (
  account      text primary key references account (id),
  name         text not null check (length(name) between 1 and 200),
  line1        text not null check (length(line1) between 1 and 200),
  line2        text not null check (length(line2) <= 200),
  city         text not null check (length(city) between 1 and 200),
  region       text not null check (length(region) <= 200),
  postal_code  text not null check (length(postal_code) <= 20),
  -- ISO 3166-1 alpha-2.
  country      text not null check (country ~ '^[A-Z]{2}$'),
  tax_id       text not null check (length(tax_id) <= 40),
  changed_at   timestamptz not null default clock_timestamp()
);

-- Keys end by themselves (each says until when it is used), and old ones stay to open what they sealed.
create table session_key (
  name        text primary key,
  element     text not null,
  created_at  timestamptz not null default clock_timestamp()
);
