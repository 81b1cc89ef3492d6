-- Part of scripts about a number: is a device token still good? It was issued at an earlier login with the number.
-- A log-out everywhere stores its time as `ms:device`: it revokes all earlier tokens of the number, but keeps that of the
-- device that asked for it.

-- Whether the token of a device counts: it was issued (ms) after the last log-out everywhere, or was kept by it.
local function device_lives(ended, issued, device)
  if issued == '' then return false end
  local time, kept = string.match(redis.call('GET', ended) or '', '^(%d+):(.*)$')
  return not time or tonumber(issued) > tonumber(time) or device == kept
end
