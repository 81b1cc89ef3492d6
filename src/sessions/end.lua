-- Ends sessions of a user, each with the sessions of the apps that it logged in to. The record of an ended session says
-- 'revoked' for an access token's life, and holds nothing else.
-- KEYS the user's sessions; in {sub}, as every session key that is made from the prefix
-- ARGV the prefix of session keys, how long to tell (ms), 'these' or 'all but', ids ...
-- Returns the ids that were alive until now.
-- One script, because a session that is opened or refreshed between a look and a delete would stay alive: so would that of
-- an app, and it must not outlive the session that it came from.
local prefix, tell = ARGV[1], ARGV[2]
local ids, kept = {}, {}
for i = 4, #ARGV do
  if ARGV[3] == 'these' then ids[#ids + 1] = ARGV[i] else kept[ARGV[i]] = true end
end
if ARGV[3] ~= 'these' then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    if not kept[id] then ids[#ids + 1] = id end
  end
end

local ended = {}
local function finish(id)
  local key = prefix .. id
  local record = redis.call('HGETALL', key)
  local fields = {}
  for i = 1, #record, 2 do fields[record[i]] = record[i + 1] end
  if fields.authenticated then
    redis.call('DEL', key)
    redis.call('HSET', key, 'revoked', '1')
    redis.call('PEXPIRE', key, tell)
    ended[#ended + 1] = id
  end
  redis.call('ZREM', KEYS[1], id)
  return fields
end
for _, id in ipairs(ids) do
  local fields = finish(id)
  for field, child in pairs(fields) do
    if string.sub(field, 1, 4) == 'app:' then finish(child) end
  end
  if fields.parent then
    local parent, app = prefix .. fields.parent, 'app:' .. fields.client
    if redis.call('HGET', parent, app) == id then redis.call('HDEL', parent, app) end
  end
end
return ended
