-- Reads for an operator the levels of the abuse control and the reasons of its decisions. Changes nothing.
-- KEYS the abuse control; its scopes, levels and decisions begin with this name, on {admission}
-- ARGV how many decisions, the scope of the whole service
-- Returns a JSON text: now (ms), raised [{scope, level, until}], service {m, q: sums of both windows}, decisions [[field,
--      value ...]], the newest first.
-- One script, because a level that changes between two reads would contradict its own reason.
local abuse, now = KEYS[1], now_ms()
local raised = {}
for _, scope in ipairs(redis.call('ZREVRANGE', abuse .. ':raised', 0, 99)) do
  local level, stored, held_until = abuse_held(redis.call('GET', abuse_level_key(abuse, scope)), now)
  if level > 0 then
    local until_then = held_until + (stored - level) * ABUSE_HOLD
    raised[#raised + 1] = { scope = scope, level = level, ['until'] = until_then }
  end
end

local flat, fields, service = redis.call('HGETALL', abuse_key(abuse, ARGV[2])), {}, {}
for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
for _, window in ipairs(ABUSE_WINDOWS) do service[window.name] = abuse_sums(nil, fields, window, now, 0) end

local decisions = {}
for _, entry in ipairs(redis.call('XREVRANGE', abuse .. ':decisions', '+', '-', 'COUNT', ARGV[1])) do
  decisions[#decisions + 1] = entry[2]
end
-- An empty table would be an object to JSON.
return cjson.encode({ now = now, service = service, raised = #raised > 0 and raised or cjson.null,
  decisions = #decisions > 0 and decisions or cjson.null })
