-- Releases the Idempotency-Key of a send that failed, so that its repeat may resume it.
-- KEYS record of the key; in {pseudonym}
-- ARGV who took its place, 1 when certainly nothing was sent so that the repeat may begin with the first provider again, 0
--      when it may have been, '' when this request did nothing and what was known before holds
-- Returns 1, or 0 when the record is gone, or the place another request's, or the send came to its end all the same.
-- One script, because a record that expired between a check and the write would come back without a time to live.
local owner, state = unpack(redis.call('HMGET', KEYS[1], 'owner', 'state'))
-- The step that finishes may have run, and only its answer been lost: the repeat must find the answer, and send nothing.
-- And what is tried again in the background may come when a repeat is under way: its place is not free.
if owner ~= ARGV[1] or state ~= 'flight' then return 0 end
redis.call('HSET', KEYS[1], 'state', 'released')
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'unsent', ARGV[2]) end
return 1
