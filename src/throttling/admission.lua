-- Admits one SMS or refuses it: every limit and budget is checked before any is counted, so a refusal costs nothing. An
-- admitted SMS is charged, and written to the ledger, in the same script.
-- KEYS the number's list of timestamps, that of its devices, the whole service's, the budget's minutes (hash), its quarter
--      hours (hash), the ledger, the abuse control, the mark that a number logged in not long ago, under an Idempotency-Key the admission entry
--      (JSON text, as `send` below), and the solution of a proof of work if there is one; all in {admission}
-- ARGV price in paise, budget per hour, budget per day (-1: none), percent of them that is not for this number once any
--      number has logged in, 'device' | 'returning' | 'new', the abuse control's highest level for conversion and for wrong
--      codes, pseudonym, provider, how long a used solution is remembered (ms), the scopes of the abuse control as a JSON
--      array, the client's address range, '1' if the number saw so many wrong codes that a proof of work comes first, two
--      keyed hashes of the client as a JSON array (see abuse_challenged), when the challenge was created (ms) and the
--      fencing token (both 0 without an Idempotency-Key), 'send' | 'repeat' | 'tell': what follows if the send was charged
--      before, the number's limits, those of its devices, the service's
-- Returns a JSON object with a `kind`: `admitted` with first (this request charged it), resendAfterMs, and send {createdAt,
--      token, charged, price, place, allowance, minute, quarter, entry, at, network, scopes}, which a refund needs;
--      `phone`, `service`, `budget`, `denied`, `challenge` with ms until it opens again; `superseded` if a later request
--      under the key was here; `judge` if nothing was counted, because the time mark of a scope has expired: judge.lua
--      runs first, then this script runs again.
-- One script, because between a check and a count on two replicas the last place would be given twice.
local price, per_hour, per_day, reserve = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local standing = ARGV[5]
local modes = { conversion = tonumber(ARGV[6]), wrong_codes = tonumber(ARGV[7]) }
local scopes, clients = cjson.decode(ARGV[11]), cjson.decode(ARGV[14])
local created, token = tonumber(ARGV[15]), tonumber(ARGV[16])
local number = { key = KEYS[1], name = 'phone' }
local device = { key = KEYS[2], name = 'device' }
local at
number.limits, number.keep, number.longest, at = read_limits(18)
device.limits, device.keep, device.longest, at = read_limits(at)
local service_limits, service_keep, service_longest = read_limits(at)
local ledger, abuse = KEYS[6], KEYS[7]
local entry_key = token > 0 and KEYS[9]
local solution = KEYS[entry_key and 10 or 9]
local day_budget = per_day
-- Before the first login, the reserve would be for no number.
if reserve > 0 and redis.call('EXISTS', KEYS[8]) == 1 then
  if per_hour >= 0 then per_hour = per_hour - math.floor(per_hour * reserve / 100) end
  if per_day >= 0 then per_day = per_day - math.floor(per_day * reserve / 100) end
end
local now = now_ms()

-- The admission entry of an earlier request under the key. It outlives the lease and the challenge.
local before = cjson.decode(entry_key and redis.call('GET', entry_key) or '{}')
local seen = before.createdAt or 0
-- A process that stalled until its lease ran out must not send beside the request that resumed the send. No challenge lives
-- for more than ten minutes, and its entry lives longer: a process that stalled for eleven minutes would find no entry.
local superseded = seen > created or (seen == created and (before.token or 0) > token)
if superseded or (entry_key and now - created > 630000) then return cjson.encode({ kind = 'superseded' }) end
-- The key was used again after its challenge expired: this is another send, and it is charged anew.
if seen < created then before = {} end
local function save(send, ms)
  send.createdAt, send.token = created, token
  if entry_key then redis.call('SET', entry_key, cjson.encode(send), 'PX', ms) end
  return send
end
local KEEP_ENTRY, LONGEST_LEASE = 660000, 60000

-- A refusal keeps the fencing token while an earlier request may still be under way, and nothing else.
local function refuse(kind, ms)
  if token > 1 then save(before, before.place and KEEP_ENTRY or LONGEST_LEASE) end
  return cjson.encode({ kind = kind, ms = ms })
end
local function admit(first, send)
  local wait = windows_wait(number.key, now, number.limits)
  if standing == 'device' then wait = math.min(wait, windows_wait(device.key, now, device.limits)) end
  return cjson.encode({ kind = 'admitted', first = first, resendAfterMs = wait, send = save(send, KEEP_ENTRY) })
end
-- Charged before, and not sent again.
if before.charged and ARGV[17] == 'tell' then return admit(false, before) end

-- A repeat takes the place that its first try holds in the list, so that it is counted once, and when it is sent. The list
-- holds no more than its limits allow: only the limits that are full without that place can refuse.
local function wait_beside_first(list)
  local place = before.allowance == list.name and redis.call('LPOS', list.key, before.place, 'RANK', -1)
  if not place then return windows_wait(list.key, now, list.limits) end
  local refusing, newer = {}, redis.call('LLEN', list.key) - place - 1
  for _, limit in ipairs(list.limits) do
    if limit.count <= newer then refusing[#refusing + 1] = limit end
  end
  return windows_wait(list.key, now, refusing)
end

-- Milliseconds until the budget has room for the price, and the paise that were spent in its window. A bucket counts until all of it has left the window: never
-- more than the budget in any window, perhaps refused one bucket early. Buckets that have left are deleted on the way.
local function budget_wait(key, budget, width, buckets)
  local current, spent, charged = math.floor(now / width), 0, {}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local bucket, paise = tonumber(fields[i]), tonumber(fields[i + 1])
    if bucket < current - buckets then
      redis.call('HDEL', key, fields[i])
    else
      spent, charged[bucket] = spent + paise, paise
    end
  end
  if budget < 0 or spent + price <= budget then return 0, spent end
  local in_window = spent
  for bucket = current - buckets, current do
    spent = spent - (charged[bucket] or 0)
    if spent + price <= budget then return (bucket + buckets + 1) * width - now, in_window end
  end
  return buckets * width, in_window
end

-- Before the limits, because operators are told of an attack also while the budget refuses every send.
local level, held_until, raised = abuse_levels(abuse, scopes, now, modes)
if not level and not before.charged then return cjson.encode({ kind = 'judge' }) end

local list = before.charged and before.allowance == 'device' and device or number
local wait = wait_beside_first(list)
if wait > 0 and standing == 'device' and not before.charged then
  -- Strangers can use up the number's own limits. They cannot use up those of its devices.
  list, wait = device, math.min(wait, windows_wait(device.key, now, device.limits))
end
if wait > 0 then return refuse('phone', wait) end
wait = windows_wait(KEYS[3], now, service_limits)
if wait > 0 then return refuse('service', wait) end
local function take_place()
  if before.allowance == list.name then redis.call('LREM', list.key, -1, before.place) end
  window_record(KEYS[3], now, service_keep, service_longest)
  return text(window_record(list.key, now, list.keep, list.longest))
end
if before.charged then
  before.place = take_place()
  return admit(false, before)
end
local hour_wait, spent_in_hour = budget_wait(KEYS[4], per_hour, 60000, 60)
local day_wait, spent_in_day = budget_wait(KEYS[5], per_day, 900000, 96)
wait = math.max(hour_wait, day_wait)
if wait > 0 then return refuse('budget', wait) end

-- A returning number is not denied, and a device token is not even challenged: otherwise an attack would lock the returning
-- users out, which may be its purpose.
if standing == 'returning' then level = math.min(level, 2) end
if standing == 'device' then level = 0 end
-- Half of the day's budget is spent, and the last hour spent more than a 24th of it: at this rate the budget ends before the
-- day. A proof of work for new numbers slows bots down while it still has room.
local hurried = day_budget > 0 and 2 * spent_in_day >= day_budget and 24 * spent_in_hour > day_budget
if hurried and standing == 'new' and modes.conversion == 3 then level = math.max(level, 2) end
-- A used solution counts as none.
local solved = solution and redis.call('EXISTS', solution) == 0
local needs_proof = level == 2 or ARGV[13] == '1'
if level == 3 or (needs_proof and not solved) then
  -- Only a send that the abuse control challenges can leave its challenge unsolved.
  if level == 2 then
    for _, scope in ipairs(raised) do abuse_challenged(abuse, scope, clients, now) end
  end
  return refuse(level == 3 and 'denied' or 'challenge', math.max(1, held_until - now))
end

local place = take_place()
local minute, quarter = text(math.floor(now / 60000)), text(math.floor(now / 900000))
redis.call('HINCRBY', KEYS[4], minute, price)
redis.call('PEXPIRE', KEYS[4], 61 * 60000)
redis.call('HINCRBY', KEYS[5], quarter, price)
redis.call('PEXPIRE', KEYS[5], 97 * 900000)
if solved then
  redis.call('SET', solution, '1', 'PX', ARGV[10])
  for _, scope in ipairs(raised) do abuse_passed(abuse, scope, clients, now) end
end
local counted = tonumber(place)
for _, scope in ipairs(scopes) do abuse_count(abuse, scope, 's', counted) end
local entry = ledger_append(ledger, now, 'event', 'sent', 'phone', ARGV[8], 'provider', ARGV[9], 'cost', text(price * 100))
usage_add(ledger, counted, 'sent', 1)
usage_add(ledger, counted, 'cost', price * 100)
return admit(true, {
  charged = true, price = price, place = place, allowance = list.name, minute = minute, quarter = quarter,
  entry = entry, at = counted, network = ARGV[12], scopes = scopes,
})
