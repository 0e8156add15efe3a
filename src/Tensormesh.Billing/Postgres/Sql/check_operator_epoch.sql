-- Ends the SQL transaction of an operator whose epoch is over. It is asked after the lock on whatever is written (the account, the
-- prices, the row itself), in a snapshot of its own: then either this transaction has the lock before the next leader can, or it sees
-- the next leader's epoch. The row of the epoch is only read, so that writers do not queue behind it.
create or replace function check_operator_epoch(p_epoch bigint) returns void language plpgsql as $$
declare
  v_now operator_epoch;
begin
  select * into v_now from operator_epoch;
  if v_now.epoch is distinct from p_epoch then
    raise exception 'the operator of epoch % may write no more: % took epoch % at %', p_epoch, v_now.holder, v_now.epoch,
        to_char(v_now.taken_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
      using errcode = 'TM008', hint = 'Two operators believe that they lead. This one must step down.';
  end if;
  -- An operator that is paused in the middle of a transaction must not keep an account locked for longer than it can keep the lease.
  perform set_config('idle_in_transaction_session_timeout', '15s', true);
end $$;
