-- Releases the Idempotency-Key of a send that failed, so that its repeat may resume it.
-- KEYS record of the key; in {pseudonym}
-- ARGV who took its place, ms until a resend when it was admitted and may have been sent, or -1, its SMS (without such a
--      time: what it left in the number's limit) or '', 1 when certainly nothing was sent: the repeat may begin with the
--      first provider again
-- Returns 1, or 0 when the record is gone, or the place another request's, or the send came to its end all the same.
-- One script, because a record that expired between a check and the write would come back without a time to live.
local owner, state = unpack(redis.call('HMGET', KEYS[1], 'owner', 'state'))
-- The step that finishes may have run, and only its answer been lost: the repeat must find the answer, and send nothing.
-- And what is tried again in the background may come when a repeat is under way: its place is not free.
if owner ~= ARGV[1] or state ~= 'flight' then return 0 end
redis.call('HSET', KEYS[1], 'state', 'released', 'unsent', ARGV[4])
if tonumber(ARGV[2]) >= 0 then
  redis.call('HSET', KEYS[1], 'resend', text(now_ms() + tonumber(ARGV[2])))
end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'sms', ARGV[3]) end
return 1
