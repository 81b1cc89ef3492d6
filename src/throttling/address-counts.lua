-- Tells for the metrics how many addresses of a bucket are counted exactly, and how many share a counter.
-- KEYS the bucket, the prefix of all keys (see functions.lua)
-- ARGV JSON: {limits}
-- Returns {addresses that are counted exactly, addresses that share}, IPv6 by its /64.
-- One script, because the two periods are those of Redis's clock.
local current, previous = periods_of(cjson.decode(ARGV[1]).limits, now_ms())
local exact = 0
for _, period in ipairs({ current, previous }) do
  exact = exact + math.max(0, redis.call('HLEN', KEYS[1] .. ':address' .. period) - 1)
end
return { exact, redis.call('PFCOUNT', KEYS[1] .. ':sharers' .. current, KEYS[1] .. ':sharers' .. previous) }
