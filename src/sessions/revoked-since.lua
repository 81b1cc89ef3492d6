-- Reads the ids of sessions that ended at a time or later.
-- KEYS {revocations}
-- ARGV how long they count (ms), the time (ms)
-- Returns {now (ms), id, time, id, time ...}, the oldest first.
-- One script, because the time of the look must be the store's own: the next look starts from it.
local now = now_ms()
local from = math.max(now - tonumber(ARGV[1]), tonumber(ARGV[2]))
local answer = { text(now) }
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], text(from), '+inf', 'WITHSCORES')) do
  answer[#answer + 1] = entry
end
return answer
