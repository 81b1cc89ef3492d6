-- Counts one request of a client address, or refuses it: every window of every scope is checked before any is counted,
-- so a refusal costs nothing. Up to 10,000 addresses are counted exactly, each request by its timestamp. Further
-- addresses share 65,536 counters, which may refuse early and never late: a quarter of a window counts until all of it
-- has left, and an address is counted exactly again only when its counter was not used for the longest window.
-- KEYS the bucket, such as otp-login:{addresses}:send: the prefix of all keys (see functions.lua)
-- ARGV JSON: {limits: [{count, window (ms)}], scopes: [{id, width, counter, factor}], raise (1 or 3: the limits are
--      multiplied by it), passes (true: a shared counter does not refuse), work (number of a solved proof of work, or nil)}
-- Returns {0, requests of the address that count now, one mark for each scope, which gives the place back}, or {ms until
--      the address may come again, 1 if a proof of work would let it pass now}.
-- One script, because between a check and a count on two replicas the last place would be given twice.
local ask = cjson.decode(ARGV[1])
local limits, now = ask.limits, now_ms()
local current, previous, expires = periods_of(limits, now)

local function exact_wait(list, factor)
  local wait, length = 0, length_of(list)
  for _, limit in ipairs(limits) do
    local count = limit.count * factor
    -- The count-th newest entry decides alone, because the list is in order of time. A window includes both edges.
    if length >= count then
      wait = math.max(wait, entry_at(list, length - count + 1) + limit.window + 1 - now)
    end
  end
  return wait
end

local function shared_wait(counter, factor)
  local wait = 0
  for _, limit in ipairs(limits) do
    local counts, quarter = shared_counts(limit.window, counter, now)
    local most, total = math.min(limit.count * factor, MOST_COUNTED), 0
    for _, counted in ipairs(counts) do total = total + counted end
    -- The oldest quarter leaves first.
    for age = #counts, 1, -1 do
      if total < most then break end
      total = total - counts[age]
      wait = math.max(wait, (quarter - age + #counts + 1) * math.ceil(limit.window / QUARTERS) - now)
    end
  end
  return wait
end

local function is_shared(scope)
  for _, period in ipairs({ current, previous }) do
    if redis.call('GETBIT', KEYS[1] .. ':sharing' .. period, scope.counter) == 1 then return true end
  end
  local held = 0
  for _, period in ipairs({ current, previous }) do
    -- Without the field of the bytes.
    held = held + math.max(0, redis.call('HLEN', KEYS[1] .. ':' .. scope.width .. period) - 1)
  end
  return held >= MOST_EXACT
end

for _, scope in ipairs(ask.scopes) do
  scope.list, scope.key = exact_record(scope, current, previous)
  if not scope.list and not is_shared(scope) then scope.list = '' end
end

local function wait_of(raise)
  local wait = 0
  for _, scope in ipairs(ask.scopes) do
    local factor = scope.factor * raise
    if scope.list then
      wait = math.max(wait, exact_wait(scope.list, factor))
    elseif not ask.passes then
      wait = math.max(wait, shared_wait(scope.counter, factor))
    end
  end
  return wait
end

-- A solution works once: without this, one solution would raise the limit for five minutes. Two bitmaps of 128 KB
-- remember the solutions of the last ten to twenty minutes, however many are solved. When two solutions have the same
-- number, the later one does not count, and its client gets another challenge.
local function spend(work)
  local period = math.floor(now / 600000)
  if redis.call('GETBIT', KEYS[1] .. ':solved:' .. text(period - 1), work) == 1 then return false end
  local key = KEYS[1] .. ':solved:' .. text(period)
  local spent = redis.call('SETBIT', key, work, 1)
  redis.call('PEXPIREAT', key, text((period + 2) * 600000))
  return spent == 0
end

local wait = wait_of(ask.raise)
if wait > 0 then
  local raisable = ask.raise == 1 and wait_of(3) == 0
  if not (raisable and ask.work and spend(ask.work)) then return { wait, raisable and 1 or 0 } end
end

local function share(scope, count_in)
  shared_add(scope.counter, limits, now, now, count_in)
  local sharing, sharers = KEYS[1] .. ':sharing' .. current, KEYS[1] .. ':sharers' .. current
  if redis.call('SETBIT', sharing, scope.counter, 1) == 0 then redis.call('PEXPIREAT', sharing, expires) end
  if scope.width == 'address' and redis.call('PFADD', sharers, scope.id) == 1 then
    redis.call('PEXPIREAT', sharers, expires)
  end
  return 's' .. text(now)
end

local function bytes_held(width)
  local bytes = 0
  for _, period in ipairs({ current, previous }) do
    bytes = bytes + tonumber(redis.call('HGET', KEYS[1] .. ':' .. width .. period, '#') or 0)
  end
  return bytes
end

local longest, most = longest_of(limits), 0
for _, limit in ipairs(limits) do most = math.max(most, limit.count) end

local function count(scope)
  if not scope.list then return share(scope, function() return 1 end) end
  local before, list, length = scope.list, scope.list, length_of(scope.list)
  -- A clock that stepped back after a failover must not put the list out of order.
  local entry = length > 0 and math.max(now, entry_at(list, length)) or now
  list = list .. entry_of(entry)
  local first = math.max(1, length + 2 - most * scope.factor * 3)
  while entry_at(list, first) + longest < now do first = first + 1 end
  list = string.sub(list, (first - 1) * ENTRY + 1)
  local key = KEYS[1] .. ':' .. scope.width .. current
  local full = length_of(list) > SHORT and bytes_held(scope.width) >= MOST_BYTES
  if scope.key and (full or scope.key ~= key) then
    exact_write(scope.key, scope.id, #before, '')
    before = ''
  end
  if full then
    -- All that it did counts in the shared counter as if it were done now: early, never late.
    return share(scope, function(window)
      local inside = 0
      for i = length_of(list), 1, -1 do
        if entry_at(list, i) + window < now then break end
        inside = inside + 1
      end
      return inside
    end)
  end
  exact_write(key, scope.id, #before, list)
  redis.call('PEXPIREAT', key, expires)
  return 'e' .. text(entry), length_of(list)
end

local answer = { 0, 0 }
for i, scope in ipairs(ask.scopes) do
  local mark, hits = count(scope)
  answer[#answer + 1] = mark
  if i == 1 then answer[2] = hits or 0 end
end
return answer
