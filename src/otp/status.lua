-- Tells how a challenge stands.
-- KEYS challenge, codes; both in {pseudonym}
-- ARGV none
-- Returns {state, attempts left, expires at (ms), resend at (ms), delivery}, or {} when it is unknown.
-- One script, because whether its code is the live one stands in another record, which a send may change in between.
local state, nonce, attempts, expires, resend_at, delivery =
  unpack(redis.call('HMGET', KEYS[1], 'state', 'nonce', 'attempts', 'expires', 'resend', 'delivery'))
if not state or state == 'pending' then return {} end
if state == 'open' then
  if now_ms() >= tonumber(expires) or redis.call('HGET', KEYS[2], 'live') ~= nonce then state = 'expired'
  elseif tonumber(attempts) <= 0 then state = 'exhausted'
  else state = 'pending' end
end
return { state, tonumber(attempts), tonumber(expires), tonumber(resend_at), delivery }
