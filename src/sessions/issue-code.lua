-- Issues an authorization code for a living session of the login page.
-- KEYS session, code (hash), how many codes the user got lately; all in {sub}
-- ARGV the counter of the refresh token, grace interval (ms), max_age (ms) or '', from when on a login counts as new (ms),
--      life of a code (ms), codes a user in a minute, then fields and values of the code
-- Returns 'issued', 'ended', 'stale': the user has to log in again, or 'too many'.
-- One script, because a code of a session that ends between the look and the write would open a session that outlives it.
local given, grace, max_age, new_from = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local authenticated, counter, rotated, client =
  unpack(redis.call('HMGET', KEYS[1], 'authenticated', 'counter', 'rotated', 'client'))
-- The session of an app never opens that of another app.
if not authenticated or client then return 'ended' end
local now = now_ms()
authenticated, counter = tonumber(authenticated), tonumber(counter)
-- As in refresh.lua: an older token may be a thief's. It is refused here, and its next refresh ends the session.
local recent = given == counter - 1 and now - tonumber(rotated or 0) <= grace
if given ~= counter and not recent then return 'ended' end
if authenticated < new_from and (not max_age or now - authenticated > max_age) then return 'stale' end
-- A page that asks in a loop must not fill Redis.
local count = redis.call('INCRBY', KEYS[3], 1)
if count == 1 then redis.call('PEXPIRE', KEYS[3], 60000) end
if count > tonumber(ARGV[6]) then return 'too many' end
redis.call('HSET', KEYS[2], unpack(ARGV, 7))
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 'issued'
