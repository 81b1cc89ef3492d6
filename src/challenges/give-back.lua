-- Gives an attempt back that upstream certainly did not look at.
-- KEYS challenge, the list that the attempt was counted in; both in {pseudonym}
-- ARGV the failure that the attempt was counted as
-- Returns 1, or 0 when the challenge is gone.
-- One script, because the challenge may expire between a check and the write, and come back without a time to live.
if redis.call('LREM', KEYS[2], -1, ARGV[1]) == 0 then return 0 end
if redis.call('HGET', KEYS[1], 'state') ~= 'open' then return 0 end
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
return 1
