-- An attempt was declined ($4, $5), or its bank asks the holder ($4 is null). Where nobody was there to be asked ($8), its card is no valid
-- card from now on: once for each attempt, so that an event that comes late does not undo what a later payment has shown.
-- $1: top-up id, $2: account, $3: payment or null, $6: idempotency key or null, $7: now.
with refused as (
  update top_up set state = case when $4 is null then state else 'declined' end, payment_intent_id = coalesce($3, payment_intent_id),
    decline_code = $4, decline_message = $5
  where account = $2 and (top_up_id = $1 or idempotency_key = $6) and state = 'started'
    and ($4 is not null or payment_intent_id is distinct from $3)
  returning account, payment_method_id
)
update payment_method m set off_session_declined_at = greatest($7, m.attached_at) from refused r
where $8 and m.account = r.account and m.payment_method_id = r.payment_method_id and m.detached_at is null
