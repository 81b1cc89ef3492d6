-- Exchanges an authorization code for the session of an app, which belongs to the session of the login page.
-- KEYS code (hash), session of the app; in {sub}, as every session key that is made from the prefix
-- ARGV the prefix of session keys, id of the app's session, client, hash of the redirect URI, PKCE challenge or '', idle
--      limit (ms), absolute limit (ms)
-- Returns {'opened', nonce or '', id of the earlier session of this app or ''}, {'used', id of the session that the first use
--      opened}, {'mismatch'}: another client, redirect URI or verifier, or {'unknown'}: also when the login has ended.
-- One script, because of two uses at once only one may open a session, and the other must know which one.
local prefix, id, client, redirect, challenge = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local idle, absolute = tonumber(ARGV[6]), tonumber(ARGV[7])
local record = redis.call('HGETALL', KEYS[1])
local code = {}
for i = 1, #record, 2 do code[record[i]] = record[i + 1] end
if not code.client then return { 'unknown' } end
-- A mismatch leaves the code as it is: a client that guesses must not use up the code of another one. Without a challenge in
-- the request, a verifier is a mismatch, too (RFC 9700 section 4.8.2).
if code.client ~= client then return { 'mismatch' } end
if code.used then return { 'used', code.used } end
if code.redirect ~= redirect or code.challenge ~= challenge then return { 'mismatch' } end

local parent = prefix .. code.parent
local authenticated, device, address = unpack(redis.call('HMGET', parent, 'authenticated', 'device', 'address'))
if not authenticated then return { 'unknown' } end
local now = now_ms()
local ttl = math.min(idle, tonumber(authenticated) + absolute - now)
if ttl <= 0 then return { 'unknown' } end
local life = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'client', client, 'used', id)
redis.call('PEXPIRE', KEYS[1], life)
redis.call('HSET', KEYS[2], 'authenticated', authenticated, 'opened', text(now), 'counter', 0, 'phone', code.phone,
  'device', device, 'address', address, 'client', client, 'parent', code.parent, 'scope', code.scope)
redis.call('PEXPIRE', KEYS[2], text(ttl))
local earlier = redis.call('HGET', parent, 'app:' .. client)
redis.call('HSET', parent, 'app:' .. client, id)
if redis.call('PTTL', parent) < ttl then redis.call('PEXPIRE', parent, text(ttl)) end
return { 'opened', code.nonce, earlier or '' }
