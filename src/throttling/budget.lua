-- Reads the sums that were charged to the budget within its windows, as admission counts them. Changes nothing.
-- KEYS the budget's minutes (hash), its quarter hours (hash), the mark that a number logged in not long ago; all in {admission}
-- ARGV none
-- Returns {paise of the hour, paise of the day, 1 when the reserve is kept for returning numbers}.
-- One script, because the store's own clock tells old buckets from young ones.
local now = now_ms()

local function spent(key, width, buckets)
  local sum, oldest = 0, math.floor(now / width) - buckets
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if tonumber(fields[i]) >= oldest then sum = sum + tonumber(fields[i + 1]) end
  end
  return sum
end

return { spent(KEYS[1], 60000, 60), spent(KEYS[2], 900000, 96), redis.call('EXISTS', KEYS[3]) }
