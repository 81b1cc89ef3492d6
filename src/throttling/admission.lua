-- Admits one SMS or refuses it: every limit and budget is checked before any is counted, so a refusal costs nothing.
-- What is admitted is in the ledger and charged in the same step.
-- KEYS the number's list of timestamps, that of its devices, the whole service's, the budget's minutes (hash), its quarter
--      hours (hash), the ledger, the abuse control, that somebody logged in within 30 days, under an Idempotency-Key
--      the send (hash: turn, charged, price, place, allowance, minute, quarter, entry, at, network, scopes), and the solution of a
--      proof of work if there is one; all in {admission}
-- ARGV price in paise, budget per hour, budget per day (-1: none), percent of them that is not for this number while
--      there are others that logged in before, 'device' | 'returning' | 'new', the abuse control's highest level for conversion and
--      for wrong codes, pseudonym, provider, how long a used solution is remembered (ms), the scopes of the abuse control as a JSON
--      array, the address range that asks, which of the key's requests this is or '' without a key, '1' when upstream is asked also
--      when it may have been before, for how long the send is known again (ms), the number's limits, those of its devices,
--      the service's
-- Returns {'admitted', ms until this number may ask again, minute, quarter hour, ledger entry, timestamp,
--      'phone' | 'device': the list that it was counted in, its address range, its scopes, 1 when all this was before},
--      what a refund and the outcome need; or {'phone' | 'service' | 'budget' | 'denied' | 'challenge', ms until it opens
--      again}; or {'late'}: a later request of the key has the send in hand; or {'judge'}: nothing was counted, because the
--      time mark of a scope has expired. judge.lua runs first, then this script runs again.
-- One script, because between a check and a count on two replicas the last place would be given twice.
local price, per_hour, per_day, reserve = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local standing = ARGV[5]
local modes = { conversion = tonumber(ARGV[6]), wrong_codes = tonumber(ARGV[7]) }
local scopes = cjson.decode(ARGV[11])
local number = { key = KEYS[1], name = 'phone' }
local device = { key = KEYS[2], name = 'device' }
local at
number.limits, number.keep, number.longest, at = read_limits(16)
device.limits, device.keep, device.longest, at = read_limits(at)
local service_limits, service_keep, service_longest = read_limits(at)
local ledger, abuse = KEYS[6], KEYS[7]
local send = ARGV[13] ~= '' and KEYS[9]
local solution = KEYS[send and 10 or 9]
-- Where nobody is known yet there is nobody to keep a reserve for.
if reserve > 0 and redis.call('EXISTS', KEYS[8]) == 1 then
  if per_hour >= 0 then per_hour = per_hour - math.floor(per_hour * reserve / 100) end
  if per_day >= 0 then per_day = per_day - math.floor(per_day * reserve / 100) end
end
local now = now_ms()

-- Of a repeat what its first try was admitted as; `charged` unless that was given back.
local first = {}
if send then
  local fields = redis.call('HGETALL', send)
  for i = 1, #fields, 2 do first[fields[i]] = fields[i + 1] end
  -- A process that stood still until its key ran out must not send beside the repeat.
  if first.turn and tonumber(first.turn) > tonumber(ARGV[13]) then return { 'late' } end
end

-- A repeat takes the place that its first try holds in the list, so that it is counted once, and when it is sent. The list
-- holds no more than its limits allow: only those can refuse that are full without it.
local function wait_beside_first(list)
  local place = first.allowance == list.name and redis.call('LPOS', list.key, first.place, 'RANK', -1)
  if not place then return windows_wait(list.key, now, list.limits) end
  local refusing, newer = {}, redis.call('LLEN', list.key) - place - 1
  for _, limit in ipairs(list.limits) do
    if limit.count <= newer then refusing[#refusing + 1] = limit end
  end
  return windows_wait(list.key, now, refusing)
end
local function take_place(list)
  if first.allowance == list.name then redis.call('LREM', list.key, -1, first.place) end
  return text(window_record(list.key, now, list.keep, list.longest))
end
local function until_next()
  local wait = windows_wait(number.key, now, number.limits)
  if standing == 'device' then wait = math.min(wait, windows_wait(device.key, now, device.limits)) end
  return wait
end

-- Admitted and charged before: that may have been sent.
if first.charged == '1' then
  if ARGV[14] == '1' then
    local list = first.allowance == 'device' and device or number
    local wait = wait_beside_first(list)
    if wait > 0 then return { 'phone', wait } end
    wait = windows_wait(KEYS[3], now, service_limits)
    if wait > 0 then return { 'service', wait } end
    redis.call('HSET', send, 'place', take_place(list))
    window_record(KEYS[3], now, service_keep, service_longest)
  end
  redis.call('HSET', send, 'turn', ARGV[13])
  redis.call('PEXPIRE', send, ARGV[15])
  return {
    'admitted', until_next(), first.minute, first.quarter, first.entry, first.at, first.allowance, first.network,
    first.scopes, 1,
  }
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

-- Before the limits, because operators are told of an attack also while the budget refuses every send.
local level, held_until, raised = abuse_levels(abuse, scopes, now, modes)
if not level then return { 'judge' } end

local allowance, wait = number, wait_beside_first(number)
if wait > 0 and standing == 'device' then
  -- Strangers who know the number can use up its own; they cannot touch that of its devices.
  allowance, wait = device, math.min(wait, windows_wait(device.key, now, device.limits))
end
if wait > 0 then return { 'phone', wait } end
wait = windows_wait(KEYS[3], now, service_limits)
if wait > 0 then return { 'service', wait } end
wait = math.max(budget_wait(KEYS[4], per_hour, 60000, 60), budget_wait(KEYS[5], per_day, 900000, 96))
if wait > 0 then return { 'budget', wait } end

-- Whoever logged in before is not denied, and who holds a device's token is not even challenged: else an attack would lock
-- the regulars out, which may be all that it wants.
if standing == 'returning' then level = math.min(level, 2) end
if standing == 'device' then level = 0 end
-- A solution that was used is none.
local solved = solution and redis.call('EXISTS', solution) == 0
if level == 3 or (level == 2 and not solved) then
  -- Of those that were not asked for one it would say nothing that they did not solve it.
  if level == 2 then
    for _, scope in ipairs(raised) do abuse_count(abuse, scope, 'c', now) end
  end
  return { level == 3 and 'denied' or 'challenge', math.max(1, held_until - now) }
end

local counted = tonumber(take_place(allowance))
window_record(KEYS[3], now, service_keep, service_longest)
local minute, quarter = text(math.floor(now / 60000)), text(math.floor(now / 900000))
redis.call('HINCRBY', KEYS[4], minute, price)
redis.call('PEXPIRE', KEYS[4], 61 * 60000)
redis.call('HINCRBY', KEYS[5], quarter, price)
redis.call('PEXPIRE', KEYS[5], 97 * 900000)
if solved then
  redis.call('SET', solution, '1', 'PX', ARGV[10])
  for _, scope in ipairs(raised) do abuse_count(abuse, scope, 'p', now) end
end
for _, scope in ipairs(scopes) do abuse_count(abuse, scope, 's', counted) end
local entry = ledger_append(ledger, now, 'event', 'sent', 'phone', ARGV[8], 'provider', ARGV[9], 'cost', text(price * 100))
usage_add(ledger, counted, 'sent', 1)
usage_add(ledger, counted, 'cost', price * 100)
if send then
  redis.call('HSET', send, 'turn', ARGV[13], 'charged', '1', 'price', text(price), 'place', text(counted), 'allowance', allowance.name, 'minute',
    minute, 'quarter', quarter, 'entry', entry, 'at', text(counted), 'network', ARGV[12], 'scopes', ARGV[11])
  redis.call('PEXPIRE', send, ARGV[15])
end
return {
  'admitted', until_next(), minute, quarter, entry, text(counted), allowance.name, ARGV[12], ARGV[11], 0,
}
