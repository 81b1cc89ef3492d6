-- What a number's own scripts ask about who is there. A device's token was made at an earlier login with the number.

-- Whether the token of a device counts: it was issued (ms) after the last log-out everywhere, or was kept by it.
local function device_lives(ended, issued, device)
  if issued == '' then return false end
  local time, kept = string.match(redis.call('GET', ended) or '', '^(%d+):(.*)$')
  return not time or tonumber(issued) > tonumber(time) or device == kept
end

-- Whether a block voids what happened at a time (ms): while it lasts everything, and after it what is older than its end.
local function block_voids(blocked, at)
  local mark = redis.call('GET', blocked)
  return mark and (mark == 'blocked' or tonumber(at) <= tonumber(mark))
end

-- Milliseconds until codes of the number may be tried, 0 when they may now; and whether that is by the allowance of its
-- devices. `at`: where in ARGV the limits of the number stand, and after them those of its devices. Whoever knows the
-- number can use up the number's own, and would lock its owner out: a device has another.
local function codes_wait(keys, now, at, device)
  local own = failed_wait(keys.failed, keys.cleared, now, at)
  if own == 0 or not device then return own, false end
  local _, _, _, after = read_limits(at)
  local limits = read_limits(after)
  return math.min(own, windows_wait(keys.device_failed, now, limits)), true
end
