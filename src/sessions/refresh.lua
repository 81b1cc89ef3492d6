-- Uses a refresh token with an authentic signature: rotates the session, or repeats the successor of the last rotation.
-- KEYS session; in {sub}, as every session key that is made from the prefix
-- ARGV the token's counter, grace interval (ms), idle limit (ms), absolute limit (ms), HMAC of the Idempotency-Key or '',
--      the client's network, the app's client or '', the prefix of session keys
-- Returns {'live', counter of the successor, authenticated (ms), encrypted phone number, time to live (ms), 'rotated' |
--      'repeated' | 'repeated elsewhere': from another network, said once for each rotation, the app's scopes or ''}, or {'reused'}, {'revoked'},
--      {'expired'}, {'unknown'}, {'key reused'}.
-- One script, because of two uses at the same time one must rotate and the other must see it. Two rotations would be a fork.
local given, grace, idle, absolute = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local key, network, app, prefix = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local authenticated, counter, rotated, phone, revoked, last_key, address, from, told, client, parent, scope = unpack(redis.call(
  'HMGET', KEYS[1], 'authenticated', 'counter', 'rotated', 'phone', 'revoked', 'key', 'address', 'from', 'elsewhere',
  'client', 'parent', 'scope'))
if revoked then return { 'revoked' } end
if not authenticated then return { 'expired' } end
-- The token of another client (RFC 6749 section 6). It is refused and ends nothing: a client that steals tokens of others
-- could otherwise log their users out.
if (client or '') ~= app then return { 'unknown' } end
-- The session of an app ends with the session that it came from.
if parent and redis.call('HEXISTS', prefix .. parent, 'authenticated') == 0 then return { 'expired' } end
authenticated, counter = tonumber(authenticated), tonumber(counter)
local now = now_ms()
-- A comparison of two HMACs: its time tells a guesser of keys nothing, because the guesser cannot compute them.
local same_key = key ~= '' and key == last_key

-- The immediate parent, while its successor is unused. Under the key of its first use it is the client that lost the
-- answer: a thief that copied the token does not have the key, which the client made at random just before it sent the
-- token. Without the key it may be a second tab, for a short time. Later it may be a thief or the owner behind a thief,
-- which the service cannot tell apart, so the session ends. A repeat changes no lifetime.
if given == counter - 1 and (same_key or now - tonumber(rotated or 0) <= grace) then
  local kind = 'repeated'
  if network ~= (from or address) and not told then
    kind = 'repeated elsewhere'
    -- Refused while Redis is full, and then said once more. The holder of a token must not fill the audit.
    redis.pcall('HSET', KEYS[1], 'elsewhere', '1')
  end
  return { 'live', counter, authenticated, phone, redis.call('PTTL', KEYS[1]), kind, scope or '' }
end
if given < counter then return { 'reused' } end
-- One ahead: a failover lost the last rotation and its key, and the store catches up. A higher counter was never signed.
if given > counter + 1 then return { 'unknown' } end
-- One key for two rotations: of two repeats under it, the store could not tell which successor each one lost.
if given == counter and same_key then return { 'key reused' } end

local ttl = math.min(idle, authenticated + absolute - now)
if ttl <= 0 then return { 'expired' } end
-- A deletion comes first, because Redis lets a script that has written go on while Redis is full. A rotation stores at
-- most some 50 bytes more, and refusing it would end the sessions of all users.
redis.call('HDEL', KEYS[1], 'key', 'from', 'elsewhere')
redis.call('HSET', KEYS[1], 'counter', text(given + 1), 'rotated', text(now))
if key ~= '' then redis.call('HSET', KEYS[1], 'key', key) end
if network ~= address then redis.call('HSET', KEYS[1], 'from', network) end
redis.call('PEXPIRE', KEYS[1], text(ttl))
-- The use of an app is a use of its login: a user of apps only must not be logged out of the login page.
if parent and redis.call('PTTL', prefix .. parent) < ttl then redis.call('PEXPIRE', prefix .. parent, text(ttl)) end
return { 'live', given + 1, authenticated, phone, ttl, 'rotated', scope or '' }
