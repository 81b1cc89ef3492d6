-- Uses a refresh token: the counter in it was authentic, now the store says whether it is the newest.
-- KEYS session
-- ARGV the token's counter, grace interval (ms), idle limit (ms), absolute limit (ms)
-- Returns {'live', counter of the successor, authenticated (ms), encrypted phone number, time to live (ms), '1' when
--      it was rotated now}, or {'reused'}, {'revoked'}, {'expired'}, {'unknown'}.
-- One script, because of two uses at once one rotates and the other must see it: two rotations would be a fork.
local given, grace, idle, absolute = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local authenticated, counter, rotated, phone, revoked =
  unpack(redis.call('HMGET', KEYS[1], 'authenticated', 'counter', 'rotated', 'phone', 'revoked'))
if revoked then return { 'revoked' } end
if not authenticated then return { 'expired' } end
authenticated, counter = tonumber(authenticated), tonumber(counter)
local now = now_ms()

-- A lost answer, or a second tab: the immediate parent gets the same successor again, for a short time. Later it can
-- only be a thief's, or the owner's after a thief's: nobody can tell, so the session ends.
if given == counter - 1 and now - tonumber(rotated or 0) <= grace then
  return { 'live', counter, authenticated, phone, redis.call('PTTL', KEYS[1]), '0' }
end
if given < counter then return { 'reused' } end
-- One ahead: a failover lost the last rotation, and the store catches up. Nobody can have signed anything further.
if given > counter + 1 then return { 'unknown' } end

local ttl = math.min(idle, authenticated + absolute - now)
if ttl <= 0 then return { 'expired' } end
redis.call('HSET', KEYS[1], 'counter', text(given + 1), 'rotated', text(now))
redis.call('PEXPIRE', KEYS[1], text(ttl))
return { 'live', given + 1, authenticated, phone, ttl, '1' }
