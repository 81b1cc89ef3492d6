-- Part of scripts of a number: is a device token still good? It was issued at an earlier login with the number.
-- A log-out everywhere stores its time, and keeps the device that asked for it.

-- Whether the token of a device counts: it was issued (ms) after the last log-out everywhere, or was kept by it.
local function device_lives(ended, issued, device)
  if issued == '' then return false end
  local time, kept = string.match(redis.call('GET', ended) or '', '^(%d+):(.*)$')
  return not time or tonumber(issued) > tonumber(time) or device == kept
end
