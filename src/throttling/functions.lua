-- The table of client addresses, for the scripts that count in it. Every key begins with KEYS[1] and lies on its slot:
--   <KEYS[1]>:<width>:<longest>:<period>   hash of the addresses that are counted exactly: pseudonym -> timestamps of six
--                                          bytes, oldest first; its field '#' is the sum of their bytes
--   <KEYS[1]>:shared:<window>              65,536 counters of twelve bytes: what was counted in each quarter of a window
--   <KEYS[1]>:sharing:<longest>:<period>   bitmap: the counters that were used
--   <KEYS[1]>:sharers:<longest>:<period>   HyperLogLog of the addresses that share a counter, for the metric
-- A period is as long as the longest window, so what the current and the previous one do not hold counts no more.
-- Strangers choose how many addresses there are: each of these keys has a largest size, and all of them expire.

-- As many addresses are counted exactly, and with as many bytes of timestamps.
local MOST_EXACT, MOST_BYTES = 10000, 400000
-- A record that is longer than this moves to a shared counter when the bytes are used up.
local SHORT = 16
local ENTRY = 6
local QUARTERS = 4
local MOST_COUNTED = 65535

local function length_of(list) return #list / ENTRY end
-- In two parts: where Lua's integers have 32 bits (the embedded store), one part of 48 bits would be cut.
local function entry_of(ms) return struct.pack('>HI4', math.floor(ms / 2 ^ 32), ms % 2 ^ 32) end
local function entry_at(list, i)
  local high, low = struct.unpack('>HI4', list, (i - 1) * ENTRY + 1)
  return high * 2 ^ 32 + low
end

local function longest_of(limits)
  local longest = 0
  for _, limit in ipairs(limits) do longest = math.max(longest, limit.window) end
  return longest
end

-- The two periods that count, the current one first, and when a key of the current one expires.
local function periods_of(limits, now)
  local longest = longest_of(limits)
  local period = math.floor(now / longest)
  local suffix = ':' .. text(longest) .. ':'
  return suffix .. text(period), suffix .. text(period - 1), text((period + 2) * longest)
end

local function shared_key(window) return KEYS[1] .. ':shared:' .. text(window) end

-- The counts of a shared counter in the current quarter of a window and the four before it, the newest first, and the
-- number of the newest. Twelve bytes: the newest quarter's number modulo 65,536, and five counts.
local function shared_counts(window, counter, now)
  local quarter = math.floor(now / math.ceil(window / QUARTERS))
  local raw = redis.call('GETRANGE', shared_key(window), counter * 12, counter * 12 + 11)
  local counts = { 0, 0, 0, 0, 0 }
  if #raw < 12 then return counts, quarter end
  local kept = { struct.unpack('>HHHHHH', raw) }
  local passed = (quarter - kept[1]) % 65536
  -- A clock that stepped back after a failover: what was counted stays.
  if passed > 65000 then passed = 0 end
  for i = 1, 5 - passed do counts[i + passed] = kept[i + 1] end
  return counts, quarter
end

-- Adds to a shared counter in every window. A quarter's count never passes its 16 bits.
local function shared_add(counter, limits, now, at, count_in)
  local added = {}
  for _, limit in ipairs(limits) do
    local window = limit.window
    if not added[window] then
      added[window] = true
      local counts, quarter = shared_counts(window, counter, now)
      local age = quarter - math.floor(at / math.ceil(window / QUARTERS)) + 1
      local key = shared_key(window)
      -- The key may be gone already: it would come back without an expiry.
      if counts[age] and (at == now or redis.call('EXISTS', key) == 1) then
        counts[age] = math.max(0, math.min(MOST_COUNTED, counts[age] + count_in(window)))
        redis.call('SETRANGE', key, counter * 12, struct.pack('>HHHHHH', quarter % 65536, unpack(counts)))
        redis.call('PEXPIRE', key, text(2 * window))
      end
    end
  end
end

-- The record of an address in the exact table: its timestamps and the key that holds them, or nothing.
local function exact_record(scope, current, previous)
  for _, period in ipairs({ current, previous }) do
    local key = KEYS[1] .. ':' .. scope.width .. period
    local list = redis.call('HGET', key, scope.id)
    if list then return list, key end
  end
end

-- Replaces the record of an address; an empty one is removed.
local function exact_write(key, id, before, list)
  if list == '' then redis.call('HDEL', key, id) else redis.call('HSET', key, id, list) end
  redis.call('HINCRBY', key, '#', #list - before)
end
