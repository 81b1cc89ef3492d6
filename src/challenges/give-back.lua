-- Gives an attempt back if upstream certainly did not check the code.
-- KEYS challenge, the list that the attempt was counted in; both in {pseudonym}
-- ARGV the failure that the attempt was counted as, when the challenge was created (ms)
-- Returns 1, or 0 when the challenge is gone.
-- One script, because the challenge may expire between a check and the write, and come back without a time to live.
if redis.call('LREM', KEYS[2], -1, ARGV[1]) == 0 then return 0 end
local state, created = unpack(redis.call('HMGET', KEYS[1], 'state', 'created'))
if state ~= 'active' or created ~= ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
return 1
