-- Counts one hit of a key, or refuses it: what the interface of @nestjs/throttler asks for, one window at a time.
-- KEYS the key's list of timestamps
-- ARGV the one limit (see read_limits)
-- Returns {hits in the window, ms until the oldest of them leaves, ms until it may come again or 0}.
-- One script, because between a check and a count on two replicas the last place would be given twice.
local limits, keep, longest = read_limits(1)
local now, window = now_ms(), limits[1].window
local wait = window_wait(KEYS[1], now, limits[1].count, window)
if wait > 0 then return { limits[1].count + 1, wait, wait } end
window_record(KEYS[1], now, keep, longest)
local hits, oldest = 0, now
for _, entry in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  entry = tonumber(entry)
  if entry + window >= now then
    hits, oldest = hits + 1, math.min(oldest, entry)
  end
end
return { hits, oldest + window + 1 - now, 0 }
