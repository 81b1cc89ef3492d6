-- Keeps the answer of a verification for repeats under its Idempotency-Key, or releases the key.
-- KEYS challenge; in {pseudonym}
-- ARGV name of the key's field, the record to keep or '' to release
-- Returns 1, or 0 when the challenge is gone or its code turned out right.
-- One script, because a challenge that expired between a check and the write would come back without a time to live.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
-- The step that used the code up may have run, and only its answer been lost: the repeat must find it.
if string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^[^:]+:200:') then return 0 end
if ARGV[2] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
