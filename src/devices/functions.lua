-- What scripts of a number ask about its devices. A device token was issued at an earlier login with the number.

-- Whether the token of a device counts: it was issued (ms) after the last log-out everywhere, or was kept by it.
local function device_lives(ended, issued, device)
  if issued == '' then return false end
  local time, kept = string.match(redis.call('GET', ended) or '', '^(%d+):(.*)$')
  return not time or tonumber(issued) > tonumber(time) or device == kept
end
