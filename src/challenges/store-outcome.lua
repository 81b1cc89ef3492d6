-- Keeps the answer of a verification for repeats under its Idempotency-Key, or releases the key.
-- KEYS challenge; in {pseudonym}
-- ARGV name of the key's field, the record to keep or '' to release, the mark of the request that took the key's place
-- Returns 1, or 0 when the challenge is gone, its code turned out right, or the place is another request's.
-- One script, because a challenge that expired between a check and the write would come back without a time to live.
local record = redis.call('HGET', KEYS[1], ARGV[1])
-- The step that used the code up may have run, and only its answer been lost: the repeat must find it. And what is tried
-- again in the background may come when a repeat is under way.
if not record or string.match(record, '^[^:]+:([^:]+):') ~= 'flight/' .. ARGV[3] then return 0 end
if ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
