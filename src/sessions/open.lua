-- Opens a session, or finds it open already: its id is derived from the challenge, so a repeat opens no second one and
-- revives none that has ended.
-- KEYS session (hash), the user's sessions (sorted set: id by time of opening), opened (that it was, for as long as a
--      repeat may come), that the number is blocked; all in {sub}
-- ARGV session id, the prefix of session keys, idle limit (ms), absolute limit (ms), sessions a user, encrypted phone
--      number, device, address, the client's own name for the device or ''
-- Returns {'live', authenticated (ms), encrypted phone number, time to live (ms), ids that are one too
--      many ...}, or {'ended'} also when it was refreshed since: its first refresh token is used.
-- One script, because two opened at once on two replicas would each see room for one more.
-- Blocked after its code was found right, and before its session was there to be ended.
if redis.call('EXISTS', KEYS[4]) == 1 then return { 'ended' } end
local id, prefix, idle, absolute, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now = now_ms()
local authenticated, counter, phone, revoked =
  unpack(redis.call('HMGET', KEYS[1], 'authenticated', 'counter', 'phone', 'revoked'))
if revoked or (authenticated and counter ~= '0') then return { 'ended' } end
if authenticated then return { 'live', tonumber(authenticated), phone, redis.call('PTTL', KEYS[1]) } end
if redis.call('EXISTS', KEYS[3]) == 1 then return { 'ended' } end

local ttl = math.min(idle, absolute)
-- Small enough for Redis's compact form: ten fields at most, none over 64 bytes. Readers find the last use in `rotated`,
-- and the secret in the sealed number.
redis.call('HSET', KEYS[1], 'authenticated', text(now), 'counter', 0, 'phone', ARGV[6], 'device', ARGV[7],
  'address', ARGV[8])
if ARGV[9] ~= '' then redis.call('HSET', KEYS[1], 'name', ARGV[9]) end
redis.call('PEXPIRE', KEYS[1], text(ttl))
redis.call('SET', KEYS[3], '1', 'PX', 90000)
-- Sessions that expired leave the index here, or they would push living ones out.
for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if redis.call('EXISTS', prefix .. other) == 0 then redis.call('ZREM', KEYS[2], other) end
end
-- After every other also within one millisecond: the newest must not be taken for the oldest.
local newest = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
redis.call('ZADD', KEYS[2], text(math.max(now, tonumber(newest[2] or 0) + 1)), id)
redis.call('PEXPIRE', KEYS[2], text(absolute))
local answer = { 'live', now, ARGV[6], ttl }
local over = redis.call('ZCARD', KEYS[2]) - most
if over > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', KEYS[2], 0, over - 1)) do answer[#answer + 1] = oldest end
end
return answer
