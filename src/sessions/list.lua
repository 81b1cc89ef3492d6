-- Lists the living sessions of a user, the newest first, each with the sessions of its apps.
-- KEYS the user's sessions; in {sub}, as every session key that is made from the prefix
-- ARGV the prefix of session keys
-- Returns for each {id, opened (ms), last used (ms), expires at (ms), device, address, the client's own name for the device
--      or '', the app's client or '', {the same for each app}}.
-- One script, because a session that ends between two looks would be listed half.
local now = now_ms()
local function describe(id, apps)
  local key = ARGV[1] .. id
  local authenticated, opened, rotated, device, address, name, client = unpack(
    redis.call('HMGET', key, 'authenticated', 'opened', 'rotated', 'device', 'address', 'name', 'client'))
  if not authenticated then return end
  opened = tonumber(opened or authenticated)
  return {
    id, opened, tonumber(rotated or opened), now + redis.call('PTTL', key), device, address, name or '', client or '',
    apps,
  }
end

local sessions = {}
for _, id in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  local record, apps = redis.call('HGETALL', ARGV[1] .. id), {}
  for i = 1, #record, 2 do
    if string.sub(record[i], 1, 4) == 'app:' then apps[#apps + 1] = describe(record[i + 1], {}) end
  end
  sessions[#sessions + 1] = describe(id, apps)
end
return sessions
