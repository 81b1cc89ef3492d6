-- Part of scripts about a number: is it blocked, and may codes be tried now?

-- Whether a block voids what happened at a time (ms): while it lasts everything, and after it what is older than its end.
local function block_voids(blocked, at)
  local mark = redis.call('GET', blocked)
  return mark and (mark == 'blocked' or tonumber(at) <= tonumber(mark))
end

-- Milliseconds until codes of the number may be tried, 0 when they may now; and whether that is by the allowance of its
-- devices. `at`: where in ARGV the limits of the number stand, and after them those of its devices. A stranger that
-- knows the number can use up the number's allowance, and would lock its owner out: devices have their own.
local function codes_wait(keys, now, at, device)
  local own = failed_wait(keys.failed, keys.cleared, now, at)
  if own == 0 or not device then return own, false end
  local _, _, _, after = read_limits(at)
  local limits = read_limits(after)
  return math.min(own, windows_wait(keys.device_failed, now, limits)), true
end
