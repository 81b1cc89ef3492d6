-- Lists the living sessions of a user, the newest first.
-- KEYS the user's sessions; in {sub}, as every session key that is made from the prefix
-- ARGV the prefix of session keys
-- Returns for each {id, authenticated (ms), last used (ms), expires at (ms), device, address, the client's own name for
--      the device or ''}.
-- One script, because a session that ends between two looks would be listed half.
local now = now_ms()
local sessions = {}
for _, id in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  local key = ARGV[1] .. id
  local authenticated, rotated, device, address, name =
    unpack(redis.call('HMGET', key, 'authenticated', 'rotated', 'device', 'address', 'name'))
  if authenticated then
    sessions[#sessions + 1] = {
      id, tonumber(authenticated), tonumber(rotated or authenticated), now + redis.call('PTTL', key), device, address,
      name or '',
    }
  end
end
return sessions
