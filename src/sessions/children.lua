-- Finds the sessions of apps that end with sessions of a user.
-- KEYS session ...; all in {sub}
-- ARGV none
-- Returns their ids.
-- One script, because a round trip for each session would make a log-out slow.
local ids = {}
for _, key in ipairs(KEYS) do
  local record = redis.call('HGETALL', key)
  for i = 1, #record, 2 do
    if string.sub(record[i], 1, 4) == 'app:' then ids[#ids + 1] = record[i + 1] end
  end
end
return ids
