-- What scripts of a number ask: whether it is blocked, whether codes may be tried now, and whether a send needs a proof of work.

-- Whether a block voids an event at a time (ms): while the block lasts every event, and after it every event before its end.
local function block_voids(blocked, at)
  local mark = redis.call('GET', blocked)
  return mark and (mark == 'blocked' or tonumber(at) <= tonumber(mark))
end

-- Failed codes. Clients without a device token share one list of a number's failures, the clients with one share another. The
-- first list has the limits of LIMIT_FAILED_CODES and, beyond them, a slope: a lock without an end would let any stranger shut
-- the owner out, and no lock at all would let a patient guesser go on at twenty codes a day.
local FAILED_HOUR, FAILED_DAY, FAILED_MONTH = 3600000, 86400000, 2592000000
-- From so many failures in 30 days on, two wrong codes a day remain.
local SLOPE_FROM, SLOPE = 60, { count = 2, window = FAILED_DAY }
-- From so many failures without a success on, one wrong code a day remains, and each send needs a proof of work.
local CONSECUTIVE_FROM, CONSECUTIVE = 100, { count = 1, window = FAILED_DAY }

-- The failures up to this time do not count in a window. A success clears windows of an hour or less: if it cleared longer
-- ones, a guesser could wait for the owner's next login. An operator's unlock clears windows of a day or less.
local function failures_cleared(keys, window)
  local success = window <= FAILED_HOUR and redis.call('GET', keys.cleared)
  local unlock = window <= FAILED_DAY and redis.call('LINDEX', keys.unlocks, -1)
  return math.max(tonumber(success or 0), tonumber(unlock or 0))
end
local function failures_wait(keys, list, now, limit)
  return window_wait(list, now, limit.count, limit.window, failures_cleared(keys, limit.window))
end

local function consecutive_failures(keys)
  local entry = redis.call('LINDEX', keys.failed, -CONSECUTIVE_FROM)
  return entry and tonumber(entry) > tonumber(redis.call('GET', keys.cleared) or 0)
end

-- Milliseconds until a code of the number may be tried, 0 if it may be tried now. `at`: where in ARGV the limits of the number
-- begin; those of its devices follow. `device`: the client has a device token, whose failures strangers cannot cause.
local function codes_wait(keys, now, at, device)
  local limits, _, _, after = read_limits(at)
  if device then limits = read_limits(after) end
  local wait, list = 0, device and keys.device_failed or keys.failed
  for _, limit in ipairs(limits) do wait = math.max(wait, failures_wait(keys, list, now, limit)) end
  if device then return wait end
  local slope = window_wait(list, now, SLOPE_FROM, FAILED_MONTH)
  if slope > 0 then wait = math.max(wait, math.min(slope, failures_wait(keys, list, now, SLOPE))) end
  if consecutive_failures(keys) then wait = math.max(wait, failures_wait(keys, list, now, CONSECUTIVE)) end
  return wait
end

-- Counts a failure until its code turns out right. Returns its timestamp, and the timestamp of the failure before it or false.
local function count_failure(keys, now, at, device)
  local _, keep, longest, after = read_limits(at)
  if device then _, keep, longest = read_limits(after) end
  local list = device and keys.device_failed or keys.failed
  local last = redis.call('LINDEX', list, -1)
  local kept_for = math.max(longest, FAILED_MONTH)
  -- Later than a login or an unlock within the same millisecond, which would clear it.
  local at_least = failures_cleared(keys, 0) + 1
  local failure = window_record(list, math.max(now, at_least), math.max(keep, CONSECUTIVE_FROM), kept_for)
  -- The time of a success is needed for as long as failures before it are kept.
  redis.call('PEXPIRE', keys.cleared, text(kept_for + 1000))
  return failure, last
end

-- Whether a send needs a proof of work: half of the longest window of a day or less is used up, or no code was right for long.
-- Each further guess then costs its client a second or two, and the owner logs in all the same.
local function failures_need_proof(keys, now, at)
  if consecutive_failures(keys) then return true end
  local longest
  for _, limit in ipairs((read_limits(at))) do
    if limit.window <= FAILED_DAY and (not longest or limit.window > longest.window) then longest = limit end
  end
  if not longest then return false end
  local half = { count = math.ceil(longest.count / 2), window = longest.window }
  return failures_wait(keys, keys.failed, now, half) > 0
end
