-- The abuse control's part of the admission script: it counts what was sent and what came back, and decides how far to trust each
-- scope (a number series, an address range, the whole service). All of its keys begin with the abuse control's own, on
-- {admission}. Levels: 0 nothing, 1 observe, 2 challenge, 3 deny. Modes: 0 off, 1 observe, 3 enforce.

-- A level holds for this long after it was last found justified, and then falls by one at a time.
local ABUSE_HOLD = 900000
local ABUSE_KEEP = 90 * 86400000
-- The windows: minutes of fifteen, quarter hours of a day. What was sent in the youngest buckets is not judged yet: its
-- codes are still on their way. Below the floors nothing is judged: SMS that were sent, numbers that saw a wrong code. A
-- day's window is too slow a witness to deny anybody by.
local ABUSE_WINDOWS = {
  { name = 'm', width = 60000, buckets = 15, mature = 2, floor = { conversion = 20, wrong_codes = 50 }, highest = 3 },
  { name = 'q', width = 900000, buckets = 96, mature = 1, floor = { conversion = 100, wrong_codes = 200 }, highest = 2 },
}
-- A scope is judged this often at most.
local ABUSE_JUDGED = 5000
-- Few codes come back: SMS are pumped. 60 to 95 of a hundred are normal.
local ABUSE_CONVERSION = 30
-- Most of the numbers that are tried see wrong codes: they are guessed.
local ABUSE_WRONG = 50

local function abuse_key(abuse, scope) return abuse .. ':scope:' .. scope end

-- Counts one, or `n`, at the time `at`. `what`: s sent, v verified (at the time of its sending), w a number's wrong code,
-- r a right one, c challenged, p passed by a solution. `window`: m or q; both without it.
local function abuse_count(abuse, scope, what, at, window, n)
  local key = abuse_key(abuse, scope)
  for _, each in ipairs(ABUSE_WINDOWS) do
    if not window or window == each.name then
      redis.call('HINCRBY', key, each.name .. text(math.floor(at / each.width)) .. ':' .. what, n or 1)
    end
  end
  redis.call('PEXPIRE', key, 97 * 900000)
end

-- The level that holds now: one less with every interval that has passed since it was last justified.
local function abuse_held(level, held_until, now)
  level, held_until = tonumber(level or 0), tonumber(held_until or 0)
  if level == 0 or now < held_until then return level end
  return math.max(0, level - 1 - math.floor((now - held_until) / ABUSE_HOLD))
end

-- Sums of a scope's buckets for one window: all of them, and those that began after the level rose. Old ones are deleted,
-- where a key is given.
local function abuse_sums(key, fields, window, now, risen)
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
local function abuse_badness(signal, sums, floor)
  local n, bad, worse
  if signal == 'conversion' then
    n, bad, worse = sums.s, sums.v * 100 < ABUSE_CONVERSION * sums.s, sums.v * 200 < ABUSE_CONVERSION * sums.s
  else
    local tried = sums.w + sums.r
    n, bad, worse = sums.w, sums.w * 100 > ABUSE_WRONG * tried, sums.w * 200 > (100 + ABUSE_WRONG) * tried
  end
  if n < floor or not bad then return 0 end
  return n >= 2 * floor and worse and 2 or 1
end

-- Judges a scope, if it is time to. Returns its level as far as the mode of its signal allows it now, the time until which
-- it holds, and the decision when it was changed just now. A level is justified by all of its window; it rises by what came
-- after the last rise only, so that one burst is not punished twice.
local function abuse_judge(abuse, scope, now, modes)
  local key = abuse_key(abuse, scope)
  local stored, held_until, risen, judged, raised_by =
    unpack(redis.call('HMGET', key, 'level', 'until', 'risen', 'judged', 'signal'))
  local level = abuse_held(stored, held_until, now)
  -- A level never outlives the mode that allowed it: who lowers a mode means now.
  local function allowed(its_level)
    for _, mode in ipairs(modes) do
      if mode[1] == raised_by then return math.min(its_level, mode[2]) end
    end
    return its_level
  end
  local turn = text(math.floor(now / ABUSE_JUDGED))
  if judged == turn then return allowed(level), tonumber(held_until or 0) end
  local flat, fields = redis.call('HGETALL', key), {}
  -- Nothing was sent here: there is nothing to judge, and nothing to keep.
  if #flat == 0 then return 0, 0 end
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end

  local target, reason = 0, nil
  for _, window in ipairs(ABUSE_WINDOWS) do
    local all, since = abuse_sums(key, fields, window, now, level > 0 and tonumber(risen or 0) or 0)
    for _, mode in ipairs(modes) do
      local signal, highest = mode[1], math.min(mode[2], window.highest)
      -- Wrong codes cost a stranger little: they must not be a lever to deny everybody who is new.
      if signal == 'wrong_codes' and scope == 'service' then highest = math.min(highest, 2) end
      local bad = abuse_badness(signal, all, window.floor[signal])
      if bad > 0 and highest > 0 then
        -- Nobody is denied who was not challenged first.
        local climb = level == 0 and bad or math.min(1, abuse_badness(signal, since, window.floor[signal]))
        local to = math.min(level + climb, highest)
        if to > target then target, reason = to, { signal = signal, window = window, sums = all } end
      end
    end
    -- Whoever is challenged and never solves it would go on as soon as the level falls.
    local unsolved = all.c - all.p >= window.floor.conversion and all.p * 2 < all.c
    if unsolved and window.name == 'm' and allowed(level) >= 2 and target < 2 then
      target, reason = 2, { signal = 'unsolved', window = window, sums = all }
    end
  end

  redis.call('HSET', key, 'judged', turn)
  -- The last of its fields may have been deleted, and the key with its time to live.
  redis.call('PEXPIRE', key, 97 * 900000)
  local before = tonumber(stored or 0)
  if target >= level and target > 0 then
    held_until = now + ABUSE_HOLD
    redis.call('HSET', key, 'level', target, 'until', text(held_until))
    if reason.signal ~= 'unsolved' then
      raised_by = reason.signal
      redis.call('HSET', key, 'signal', raised_by)
    end
    if target > level then redis.call('HSET', key, 'risen', text(now)) end
  elseif level ~= before then
    -- It fell by itself: told once, when it is looked at again.
    held_until = level > 0 and tonumber(held_until) + (before - level) * ABUSE_HOLD or 0
    redis.call('HSET', key, 'level', level, 'until', text(held_until))
    target = level
  else
    return allowed(level), tonumber(held_until or 0)
  end
  local raised = abuse .. ':raised'
  if target > 0 then redis.call('ZADD', raised, text(held_until), scope) else redis.call('ZREM', raised, scope) end
  redis.call('ZREMRANGEBYSCORE', raised, '-inf', text(now - 3 * ABUSE_HOLD))
  redis.call('PEXPIRE', raised, text(ABUSE_KEEP))
  -- One that fell unseen and rose again has risen from where it fell to.
  local from = target > level and level or before
  if target == from then return allowed(target), held_until end

  local sums = reason and reason.sums or { s = 0, v = 0, w = 0, r = 0, c = 0, p = 0 }
  local decision = {
    'scope', scope, 'from', text(from), 'to', text(target), 'at', text(now), 'signal', reason and reason.signal or 'quiet',
    'minutes', text(reason and reason.window.width * reason.window.buckets / 60000 or 0), 'sent', text(sums.s),
    'verified', text(sums.v), 'wrong', text(sums.w), 'right', text(sums.r), 'challenged', text(sums.c),
    'passed', text(sums.p),
  }
  redis.call('XADD', abuse .. ':decisions', 'MAXLEN', '1000', '*', unpack(decision))
  redis.call('XTRIM', abuse .. ':decisions', 'MINID', text(now - ABUSE_KEEP))
  redis.call('PEXPIRE', abuse .. ':decisions', text(ABUSE_KEEP))
  return allowed(target), held_until, decision
end
