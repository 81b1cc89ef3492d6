-- Stands before every script: the store's clock, and sliding windows over lists of timestamps.

-- Milliseconds since 1970 by the store's clock: the replicas' clocks differ, and a limit has one clock.
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A number as Redis shall keep it; Lua would write large ones in scientific notation.
local function text(number)
  return string.format('%.0f', number)
end

-- Milliseconds until the list admits one more under `count` in `window`; 0 when it does now.
-- The list is in order of time, so its count-th newest entry decides alone. An entry exactly one window old still
-- counts: a window includes both of its edges. Entries up to `since` are as if they were not there.
local function window_wait(key, now, count, window, since)
  local entry = redis.call('LINDEX', key, -count)
  if not entry then return 0 end
  entry = tonumber(entry)
  if since and entry <= since then return 0 end
  return math.max(0, entry + window + 1 - now)
end

-- Milliseconds until the list admits one more under every one of the limits.
local function windows_wait(key, now, limits)
  local wait = 0
  for _, limit in ipairs(limits) do
    wait = math.max(wait, window_wait(key, now, limit.count, limit.window))
  end
  return wait
end

-- Appends an entry, keeps the newest `keep`, and lets the list expire with its longest window. Returns the entry.
local function window_record(key, now, keep, longest)
  -- A clock that stepped back after a failover must not put the list out of order.
  local entry = math.max(now, tonumber(redis.call('LINDEX', key, -1) or 0))
  redis.call('RPUSH', key, text(entry))
  redis.call('LTRIM', key, -keep, -1)
  redis.call('PEXPIRE', key, text(longest + 1000))
  return entry
end

-- Reads `n`, then n pairs of count and milliseconds, from ARGV[at] on. Returns the pairs, the highest count, the
-- longest window and the place after them.
local function read_limits(at)
  local limits, keep, longest = {}, 0, 0
  local n = tonumber(ARGV[at])
  for i = 1, n do
    local count, window = tonumber(ARGV[at + 2 * i - 1]), tonumber(ARGV[at + 2 * i])
    limits[i] = { count = count, window = window }
    keep, longest = math.max(keep, count), math.max(longest, window)
  end
  return limits, keep, longest, at + 2 * n + 1
end
