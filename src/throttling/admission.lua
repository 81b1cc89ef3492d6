-- Admits one SMS or refuses it: every limit and budget is checked before any is counted, so a refusal costs nothing.
-- KEYS the phone's list of timestamps, the whole service's, the budget's minutes (hash), its quarter hours (hash);
--      all in {admission}
-- ARGV price in paise, budget per hour, budget per day (-1: none), the phone's limits, the service's limits
-- Returns {'admitted', ms until this phone may ask again, minute, quarter hour}: the buckets, for a refund;
--      or {'phone' | 'service' | 'budget', ms until it opens again}.
-- One script, because between a check and a count on two replicas the last place would be given twice.
local price, per_hour, per_day = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local phone_limits, phone_keep, phone_longest, at = read_limits(4)
local service_limits, service_keep, service_longest = read_limits(at)
local now = now_ms()

local function longest_wait(key, limits)
  local wait = 0
  for _, limit in ipairs(limits) do
    wait = math.max(wait, window_wait(key, now, limit.count, limit.window))
  end
  return wait
end

-- Milliseconds until the budget has room for the price. A bucket counts until all of it has left the window: never
-- more than the budget in any window, perhaps refused one bucket early. What has left is deleted on the way.
local function budget_wait(key, budget, width, buckets)
  local current = math.floor(now / width)
  local spent, ages = 0, {}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local bucket, paise = tonumber(fields[i]), tonumber(fields[i + 1])
    if bucket < current - buckets then
      redis.call('HDEL', key, fields[i])
    else
      spent = spent + paise
      ages[#ages + 1] = { bucket, paise }
    end
  end
  if budget < 0 or spent + price <= budget then return 0 end
  table.sort(ages, function(a, b) return a[1] < b[1] end)
  for _, age in ipairs(ages) do
    spent = spent - age[2]
    if spent + price <= budget then return (age[1] + buckets + 1) * width - now end
  end
  return buckets * width
end

local wait = longest_wait(KEYS[1], phone_limits)
if wait > 0 then return { 'phone', wait } end
wait = longest_wait(KEYS[2], service_limits)
if wait > 0 then return { 'service', wait } end
wait = math.max(budget_wait(KEYS[3], per_hour, 60000, 60), budget_wait(KEYS[4], per_day, 900000, 96))
if wait > 0 then return { 'budget', wait } end

window_record(KEYS[1], now, phone_keep, phone_longest)
window_record(KEYS[2], now, service_keep, service_longest)
local minute, quarter = text(math.floor(now / 60000)), text(math.floor(now / 900000))
redis.call('HINCRBY', KEYS[3], minute, price)
redis.call('PEXPIRE', KEYS[3], 61 * 60000)
redis.call('HINCRBY', KEYS[4], quarter, price)
redis.call('PEXPIRE', KEYS[4], 97 * 900000)
return { 'admitted', longest_wait(KEYS[1], phone_limits), minute, quarter }
