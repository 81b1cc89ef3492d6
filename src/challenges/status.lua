-- Reports the state of a challenge, and whether this request shall look up what became of its SMS: one of many does.
-- KEYS challenge, codes; both in {pseudonym}
-- ARGV the shortest time between two lookups (ms)
-- Returns {state, attempts left, expires at (ms), resend at (ms), delivery, the SMS to look up or '', its provider
--      or '', nonce}, or {} when it is unknown.
-- One script, because whether its code is the live one stands in another record, which a send may change in between.
local state, nonce, attempts, expires, resend_at, delivery, sms, looked, provider = unpack(redis.call('HMGET', KEYS[1],
  'state', 'nonce', 'attempts', 'expires', 'resend', 'delivery', 'sms', 'looked', 'provider'))
if not state or state == 'draft' then return {} end
local now = now_ms()
if state == 'used' then state = 'verified'
else
  if now >= tonumber(expires) or redis.call('HGET', KEYS[2], 'live') ~= nonce then state = 'expired'
  elseif tonumber(attempts) <= 0 then state = 'exhausted'
  else state = 'pending' end
end
local sent_at, message = string.match(sms or '', '^[^|]*|(%d+)|[^|]*|[^|]*|(.+)$')
local lookup = ''
if message and delivery ~= 'delivered' and delivery ~= 'failed' and state ~= 'verified' then
  -- The longer an SMS is under way, the less a frequent lookup tells.
  local pause = math.max(tonumber(ARGV[1]), (now - tonumber(sent_at)) / 2)
  if now - tonumber(looked or 0) >= pause then
    -- While Redis is full no request looks up, and the state is reported all the same.
    local noted = redis.pcall('HSET', KEYS[1], 'looked', text(now))
    if type(noted) == 'number' then lookup = sms end
  end
end
return { state, tonumber(attempts), tonumber(expires), tonumber(resend_at), delivery, lookup, provider or '', nonce }
