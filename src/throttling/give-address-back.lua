-- Gives the place of one request back: it never counted.
-- KEYS the bucket, the prefix of all keys (see functions.lua)
-- ARGV JSON: {limits, scopes: as address.lua got them, marks: as address.lua answered them}
-- Returns 0.
-- One script, because a record that is read and then written would lose what another replica counts in between.
local ask = cjson.decode(ARGV[1])
local now = now_ms()
local current, previous = periods_of(ask.limits, now)

for i, scope in ipairs(ask.scopes) do
  local kind, at = string.sub(ask.marks[i], 1, 1), tonumber(string.sub(ask.marks[i], 2))
  if kind == 's' then
    shared_add(scope.counter, ask.limits, now, at, function() return -1 end)
  else
    local list, key = exact_record(scope, current, previous)
    -- Newest first. A record that moved to a shared counter keeps the place: early, never late.
    for place = list and length_of(list) or 0, 1, -1 do
      if entry_at(list, place) == at then
        local rest = string.sub(list, 1, (place - 1) * ENTRY) .. string.sub(list, place * ENTRY + 1)
        exact_write(key, scope.id, #list, rest)
        break
      end
    end
  end
end
return 0
