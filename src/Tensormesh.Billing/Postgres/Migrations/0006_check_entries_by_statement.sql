-- The books are checked once for each statement that writes them, not four times for each transaction. A foreign key to a
-- ledger account locks its row, and a row that every post locks at once costs more than the post; accounts and transactions
-- are append only, so that what is there when it is looked for stays there, and needs no lock. A transaction is written by one
-- statement, header and entries together: then what a statement wrote is all that there will ever be of it, and summing that
-- reads no table.

drop trigger ledger_transaction_balances on ledger_transaction;
drop trigger ledger_entry_balances on ledger_entry;
drop function refuse_unbalanced;
alter table ledger_entry
  drop constraint ledger_entry_transaction_position_fkey,
  drop constraint ledger_entry_ledger_account_currency_fkey;

-- Entries are numbered from 1 without a gap within their statement. The primary key lets one statement only have the entry 1 of a
-- transaction, so nothing can be added to one that is complete. Rows are found by unique keys: the plan is made once for each
-- connection, when tables may still be small, and must not become a scan of them.
create function refuse_unsound_entries() returns trigger language plpgsql
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_fault record;
begin
  select e.transaction_position as position, count(*) as entries, sum(e.amount_nanos) as nanos, count(t.position) as headers,
      count(a.id) as accounts, count(a.id) filter (where a.currency = e.currency) as in_currency, min(e.currency) <> max(e.currency) as mixed
    into v_fault
    from written e left join ledger_transaction t on t.position = e.transaction_position left join ledger_account a on a.id = e.ledger_account
    group by e.transaction_position
    having count(*) < 2 or sum(e.amount_nanos) <> 0 or min(e.ordinal) <> 1 or max(e.ordinal) <> count(*) or min(e.currency) <> max(e.currency)
      or count(t.position) <> count(*) or count(a.id) filter (where a.currency = e.currency) <> count(*)
    limit 1;
  if not found then
    return null;
  end if;
  if v_fault.accounts <> v_fault.entries then
    raise exception 'ledger transaction % has an entry of an account that the ledger does not have', v_fault.position using errcode = 'TM002';
  end if;
  if v_fault.mixed then
    raise exception 'ledger transaction % mixes currencies', v_fault.position using errcode = 'TM003';
  end if;
  if v_fault.in_currency <> v_fault.entries then
    raise exception 'ledger transaction % is not in the currency of its accounts', v_fault.position using errcode = 'TM003';
  end if;
  raise exception 'ledger transaction % is not balanced: % entries that sum to % nanos', v_fault.position, v_fault.entries, v_fault.nanos
    using errcode = 'TM004', hint = 'Write a transaction and all of its entries, numbered from 1, with one statement.';
end $$;

create trigger entries_are_sound after insert on ledger_entry
  referencing new table as written for each statement execute function refuse_unsound_entries();

create function refuse_without_entries() returns trigger language plpgsql
  set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  v_position bigint;
begin
  select t.position into v_position from written t
    where not exists (select from ledger_entry e where e.transaction_position = t.position and e.ordinal = 1) limit 1;
  if found then
    raise exception 'ledger transaction % is not balanced: 0 entries that sum to 0 nanos', v_position
      using errcode = 'TM004', hint = 'Write a transaction and all of its entries, numbered from 1, with one statement.';
  end if;
  return null;
end $$;

create trigger has_entries after insert on ledger_transaction
  referencing new table as written for each statement execute function refuse_without_entries();
