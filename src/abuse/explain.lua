-- Tells an operator what the abuse control sees and why it decided so. Changes nothing.
-- KEYS the abuse control; its scopes and decisions lie beside it on {admission}
-- ARGV how many decisions, the scope of the whole service
-- Returns a JSON text: now (ms), raised [{scope, level, until}], service {m, q: sums of both windows}, decisions [[field,
--      value ...]], the newest first.
-- One script, because a level that changes between two looks would contradict its own reason.
local abuse, now = KEYS[1], now_ms()
local raised = {}
for _, scope in ipairs(redis.call('ZREVRANGE', abuse .. ':raised', 0, 99)) do
  local stored, held_until = unpack(redis.call('HMGET', abuse_key(abuse, scope), 'level', 'until'))
  local level = abuse_held(stored, held_until, now)
  if level > 0 then
    local until_then = tonumber(held_until) + (tonumber(stored) - level) * ABUSE_HOLD
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
