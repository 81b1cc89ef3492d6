-- Opens a session, or finds it open already: its id is derived from the challenge, so a repeat opens no second one.
-- Past the highest number of sessions a user may have, the oldest ends.
-- KEYS session (hash), the user's sessions (sorted set: id by time of opening); both in {sub}
-- ARGV session id, encrypted phone number, idle limit (ms), absolute limit (ms), sessions a user, the prefix of
--      session keys
-- Returns when the person authenticated (ms).
-- One script, because two opened at once on two replicas would each see room for one more.
local id, phone, idle, absolute, most, prefix = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local opened = redis.call('HGET', KEYS[1], 'authenticated')
if opened then return tonumber(opened) end

local now = now_ms()
redis.call('HSET', KEYS[1], 'authenticated', text(now), 'phone', phone)
redis.call('PEXPIRE', KEYS[1], text(math.min(idle, absolute)))
-- Sessions older than the absolute limit have expired by themselves.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - absolute))
redis.call('ZADD', KEYS[2], text(now), id)
redis.call('PEXPIRE', KEYS[2], text(absolute))
while redis.call('ZCARD', KEYS[2]) > most do
  local oldest = redis.call('ZPOPMIN', KEYS[2])
  redis.call('DEL', prefix .. oldest[1])
end
return now
