-- Judges scopes with an expired time mark: few codes come back (SMS pumping), or many numbers see wrong codes (guessing).
-- Any replica runs it before a send that needs it, so no job and no leader is needed.
-- KEYS the abuse control; its scopes, levels (text: level, end of the hold, time mark, time of the last rise, signal), raised
--      scopes (sorted by the end of their hold) and decisions (stream) begin with this name, on {admission}
-- ARGV the highest level for conversion, that for wrong codes, the scopes as a JSON array
-- Returns the decisions of this run, each as field, value, ...: the levels that changed.
-- One script, because of two replicas that find a mark expired only one may judge, and each decision is logged once.
local abuse, now = KEYS[1], now_ms()
local modes = { { 'wrong_codes', tonumber(ARGV[2]) }, { 'conversion', tonumber(ARGV[1]) } }
local HIGHEST = { wrong_codes = modes[1][2], conversion = modes[2][2] }
local KEEP_DECISIONS = 90 * 86400000
-- Few codes come back: SMS are pumped. 60 to 95 of a hundred are normal.
local CONVERSION = 30
-- More than half of the numbers that are tried see wrong codes: codes are guessed.
local WRONG = 50
local NOTHING = { s = 0, v = 0, w = 0, r = 0, c = 0, p = 0 }

-- How bad the sums are for a signal: 0 not bad, 1 bad, 2 far worse, which raises none to challenge at once.
local function badness(signal, sums, floor)
  local n, bad, worse
  if signal == 'conversion' then
    n, bad, worse = sums.s, sums.v * 100 < CONVERSION * sums.s, sums.v * 200 < CONVERSION * sums.s
  else
    local tried = sums.w + sums.r
    n, bad, worse = sums.w, sums.w * 100 > WRONG * tried, sums.w * 200 > (100 + WRONG) * tried
  end
  if n < floor or not bad then return 0 end
  return n >= 2 * floor and worse and 2 or 1
end

-- The level that the counters justify, and the reason. All of a window justifies a level. Only what came after the last rise
-- raises it further, so that one burst is not punished twice.
local function justified(scope, key, level, allowed, risen)
  local flat, fields, target, reason = redis.call('HGETALL', key), {}, 0, nil
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  for _, window in ipairs(ABUSE_WINDOWS) do
    local all, since = abuse_sums(key, fields, window, now, level > 0 and risen or 0)
    for _, mode in ipairs(modes) do
      local signal, highest = mode[1], math.min(mode[2], window.highest)
      -- A stranger can make wrong codes up, at the price of an SMS for three: they must never deny an SMS to other users.
      if signal == 'wrong_codes' then highest = math.min(highest, 2) end
      local bad = badness(signal, all, window.floor[signal])
      if bad > 0 and highest > 0 then
        -- A sender is denied only after it was challenged.
        local climb = level == 0 and bad or math.min(1, badness(signal, since, window.floor[signal]))
        local to = math.min(level + climb, highest)
        if to > target then target, reason = to, { signal = signal, window = window, sums = all } end
      end
    end
    -- A sender that never solves a challenge would go on as soon as the level falls.
    local unsolved = all.c - all.p >= window.floor.conversion and all.p * 2 < all.c
    unsolved = unsolved and window.name == 'm' and abuse_left_unsolved(abuse, scope, now)
    if unsolved and allowed >= 2 and target < 2 then
      target, reason = 2, { signal = 'unsolved', window = window, sums = all }
    end
  end
  return target, reason
end

-- Records the decision for operators and returns it.
local function decide(scope, from, to, reason)
  local sums = reason and reason.sums or NOTHING
  local decision = {
    'scope', scope, 'from', text(from), 'to', text(to), 'at', text(now), 'signal', reason and reason.signal or 'quiet',
    'minutes', text(reason and reason.window.width * reason.window.buckets / 60000 or 0), 'sent', text(sums.s),
    'verified', text(sums.v), 'wrong', text(sums.w), 'right', text(sums.r), 'challenged', text(sums.c),
    'passed', text(sums.p),
  }
  redis.call('XADD', abuse .. ':decisions', 'MAXLEN', '1000', '*', unpack(decision))
  redis.call('XTRIM', abuse .. ':decisions', 'MINID', text(now - KEEP_DECISIONS))
  redis.call('PEXPIRE', abuse .. ':decisions', text(KEEP_DECISIONS))
  return decision
end

local decisions = {}
for _, scope in ipairs(cjson.decode(ARGV[3])) do
  local level_key = abuse_level_key(abuse, scope)
  local stored = redis.call('GET', level_key)
  local level, before, held_until, judged, risen, raised_by = abuse_held(stored, now)
  if stored and judged ~= abuse_mark(now) then
    local allowed = math.min(level, HIGHEST[raised_by] or level)
    local target, reason = justified(scope, abuse_key(abuse, scope), level, allowed, risen)
    local from, changed = before, true
    if target >= level and target > 0 then
      held_until = now + ABUSE_HOLD
      if reason.signal ~= 'unsolved' then raised_by = reason.signal end
      -- A level that fell while no send asked for it, and rises again, rises from where it fell to.
      if target > level then from, risen = level, now end
    elseif level ~= before then
      -- It fell by itself: recorded once, at the next judgement.
      held_until = level > 0 and held_until + (before - level) * ABUSE_HOLD or 0
      target = level
    else
      target, changed = before, false
    end
    redis.call('SET', level_key, table.concat({ target, text(held_until), text(abuse_mark(now)), text(risen), raised_by }, ' '),
      'PX', ABUSE_KEEP)
    if changed then
      local raised = abuse .. ':raised'
      if target > 0 then redis.call('ZADD', raised, text(held_until), scope) else redis.call('ZREM', raised, scope) end
      redis.call('ZREMRANGEBYSCORE', raised, '-inf', text(now - 3 * ABUSE_HOLD))
      redis.call('PEXPIRE', raised, text(KEEP_DECISIONS))
      if target ~= from then decisions[#decisions + 1] = decide(scope, from, target, reason) end
    end
  end
end
return decisions
