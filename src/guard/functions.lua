-- The guard's part of a step that sends: it counts what was sent and what came back, and decides how far to trust each
-- scope (a number series, an address range, the whole service). All of its keys begin with the guard's own, on
-- {admission}. Steps: 0 nothing, 1 observe, 2 challenge, 3 deny. Modes: 0 off, 1 observe, 3 enforce.

-- A step holds for this long after it was last found justified, and then falls by one at a time.
local GUARD_HOLD = 900000
local GUARD_KEEP = 90 * 86400000
-- The windows: minutes of fifteen, quarter hours of a day. What was sent in the youngest buckets is not judged yet: its
-- codes are still on their way. Below the floors nothing is judged: SMS that were sent, numbers that saw a wrong code. A
-- day's window is too slow a witness to deny anybody by.
local GUARD_WINDOWS = {
  { name = 'm', width = 60000, buckets = 15, mature = 2, floor = { conversion = 20, wrong_codes = 50 }, highest = 3 },
  { name = 'q', width = 900000, buckets = 96, mature = 1, floor = { conversion = 100, wrong_codes = 200 }, highest = 2 },
}
-- A scope is judged this often at most.
local GUARD_JUDGED = 5000
-- Few codes come back: SMS are pumped. 60 to 95 of a hundred are normal.
local GUARD_CONVERSION = 30
-- Most of the numbers that are tried see wrong codes: they are guessed.
local GUARD_WRONG = 50

local function guard_key(guard, scope) return guard .. ':scope:' .. scope end

-- Counts one, or `n`, at the time `at`. `what`: s sent, v verified (at the time of its sending), w a number's wrong code,
-- r a right one, c challenged, p passed by a solution. `window`: m or q; both without it.
local function guard_count(guard, scope, what, at, window, n)
  local key = guard_key(guard, scope)
  for _, each in ipairs(GUARD_WINDOWS) do
    if not window or window == each.name then
      redis.call('HINCRBY', key, each.name .. text(math.floor(at / each.width)) .. ':' .. what, n or 1)
    end
  end
  redis.call('PEXPIRE', key, 97 * 900000)
end

-- The step that holds now: one less with every interval that has passed since it was last justified.
local function guard_held(step, held_until, now)
  step, held_until = tonumber(step or 0), tonumber(held_until or 0)
  if step == 0 or now < held_until then return step end
  return math.max(0, step - 1 - math.floor((now - held_until) / GUARD_HOLD))
end

-- Sums of a scope's buckets for one window: all of them, and those that began after the step rose. Old ones are deleted,
-- where a key is given.
local function guard_sums(key, fields, window, now, risen)
  local all = { s = 0, v = 0, w = 0, r = 0, c = 0, p = 0 }
  local since = { s = 0, v = 0, w = 0, r = 0, c = 0, p = 0 }
  local current = math.floor(now / window.width)
  for field, count in pairs(fields) do
    local name, bucket, what = string.match(field, '^(%a)(%d+):(%a)$')
    if name == window.name then
      local age = current - tonumber(bucket)
      local mature = (what == 's' or what == 'v') and window.mature or 0
      if age > window.buckets + window.mature then
        if key then redis.call('HDEL', key, field) end
      elseif age >= mature and age < window.buckets + mature then
        all[what] = all[what] + tonumber(count)
        if tonumber(bucket) * window.width >= risen then since[what] = since[what] + tonumber(count) end
      end
    end
  end
  return all, since
end

-- How bad the sums are for a signal: 0 not, 1 bad, 2 far worse, which goes from nothing to a challenge at once.
local function guard_badness(signal, sums, floor)
  local n, bad, worse
  if signal == 'conversion' then
    n, bad, worse = sums.s, sums.v * 100 < GUARD_CONVERSION * sums.s, sums.v * 200 < GUARD_CONVERSION * sums.s
  else
    local tried = sums.w + sums.r
    n, bad, worse = sums.w, sums.w * 100 > GUARD_WRONG * tried, sums.w * 200 > (100 + GUARD_WRONG) * tried
  end
  if n < floor or not bad then return 0 end
  return n >= 2 * floor and worse and 2 or 1
end

-- Judges a scope, if it is time to. Returns its step as far as the mode of its signal allows it now, the time until which
-- it holds, and the decision when it was changed just now. A step is justified by all of its window; it rises by what came
-- after the last rise only, so that one burst is not punished twice.
local function guard_judge(guard, scope, now, modes)
  local key = guard_key(guard, scope)
  local stored, held_until, risen, judged, raised_by =
    unpack(redis.call('HMGET', key, 'step', 'until', 'risen', 'judged', 'signal'))
  local step = guard_held(stored, held_until, now)
  -- A step never outlives the mode that allowed it: who lowers a mode means now.
  local function allowed(its_step)
    for _, mode in ipairs(modes) do
      if mode[1] == raised_by then return math.min(its_step, mode[2]) end
    end
    return its_step
  end
  local turn = text(math.floor(now / GUARD_JUDGED))
  if judged == turn then return allowed(step), tonumber(held_until or 0) end
  local flat, fields = redis.call('HGETALL', key), {}
  -- Nothing was sent here: there is nothing to judge, and nothing to keep.
  if #flat == 0 then return 0, 0 end
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end

  local target, reason = 0, nil
  for _, window in ipairs(GUARD_WINDOWS) do
    local all, since = guard_sums(key, fields, window, now, step > 0 and tonumber(risen or 0) or 0)
    for _, mode in ipairs(modes) do
      local signal, highest = mode[1], math.min(mode[2], window.highest)
      -- Wrong codes cost a stranger little: they must not be a lever to deny everybody who is new.
      if signal == 'wrong_codes' and scope == 'service' then highest = math.min(highest, 2) end
      local bad = guard_badness(signal, all, window.floor[signal])
      if bad > 0 and highest > 0 then
        -- Nobody is denied who was not challenged first.
        local climb = step == 0 and bad or math.min(1, guard_badness(signal, since, window.floor[signal]))
        local to = math.min(step + climb, highest)
        if to > target then target, reason = to, { signal = signal, window = window, sums = all } end
      end
    end
    -- Whoever is challenged and never solves it would go on as soon as the step falls.
    local unsolved = all.c - all.p >= window.floor.conversion and all.p * 2 < all.c
    if unsolved and window.name == 'm' and allowed(step) >= 2 and target < 2 then
      target, reason = 2, { signal = 'unsolved', window = window, sums = all }
    end
  end

  redis.call('HSET', key, 'judged', turn)
  -- The last of its fields may have been deleted, and the key with its time to live.
  redis.call('PEXPIRE', key, 97 * 900000)
  local before = tonumber(stored or 0)
  if target >= step and target > 0 then
    held_until = now + GUARD_HOLD
    redis.call('HSET', key, 'step', target, 'until', text(held_until))
    if reason.signal ~= 'unsolved' then
      raised_by = reason.signal
      redis.call('HSET', key, 'signal', raised_by)
    end
    if target > step then redis.call('HSET', key, 'risen', text(now)) end
  elseif step ~= before then
    -- It fell by itself: told once, when it is looked at again.
    held_until = step > 0 and tonumber(held_until) + (before - step) * GUARD_HOLD or 0
    redis.call('HSET', key, 'step', step, 'until', text(held_until))
    target = step
  else
    return allowed(step), tonumber(held_until or 0)
  end
  local raised = guard .. ':raised'
  if target > 0 then redis.call('ZADD', raised, text(held_until), scope) else redis.call('ZREM', raised, scope) end
  redis.call('ZREMRANGEBYSCORE', raised, '-inf', text(now - 3 * GUARD_HOLD))
  redis.call('PEXPIRE', raised, text(GUARD_KEEP))
  -- One that fell unseen and rose again has risen from where it fell to.
  local from = target > step and step or before
  if target == from then return allowed(target), held_until end

  local sums = reason and reason.sums or { s = 0, v = 0, w = 0, r = 0, c = 0, p = 0 }
  local decision = {
    'scope', scope, 'from', text(from), 'to', text(target), 'at', text(now), 'signal', reason and reason.signal or 'quiet',
    'minutes', text(reason and reason.window.width * reason.window.buckets / 60000 or 0), 'sent', text(sums.s),
    'verified', text(sums.v), 'wrong', text(sums.w), 'right', text(sums.r), 'challenged', text(sums.c),
    'passed', text(sums.p),
  }
  redis.call('XADD', guard .. ':decisions', 'MAXLEN', '1000', '*', unpack(decision))
  redis.call('XTRIM', guard .. ':decisions', 'MINID', text(now - GUARD_KEEP))
  redis.call('PEXPIRE', guard .. ':decisions', text(GUARD_KEEP))
  return allowed(target), held_until, decision
end
