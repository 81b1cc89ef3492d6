-- Hands a pending challenge to another provider, after the one before certainly sent nothing. The code is a new one: two
-- providers' codes never live under one nonce, and when this one is sent it voids what was live.
-- KEYS challenge, codes, and under an Idempotency-Key its record; all in {pseudonym}
-- ARGV provider, fresh nonce, time to live (ms), who has the key's place
-- Returns the code's life (ms), or 0 when the challenge is no longer this send's.
-- One script, because a crash between the name and the nonce would leave one provider's code under another's name.
if redis.call('HGET', KEYS[1], 'state') ~= 'pending' then return 0 end
local now = now_ms()
if KEYS[3] then
  local owner, state, taken_until = unpack(redis.call('HMGET', KEYS[3], 'owner', 'state', 'until'))
  -- A place that has run out may be taken at any time, and then two would send.
  if owner ~= ARGV[4] or state ~= 'flight' or now >= tonumber(taken_until) then return 0 end
end
local expires = now + tonumber(ARGV[3])
-- Younger than the code that was used, as any new one.
local issued = math.max(now, tonumber(redis.call('HGET', KEYS[2], 'used:issued') or -1) + 1)
redis.call('HSET', KEYS[1], 'provider', ARGV[1], 'nonce', ARGV[2], 'issued', text(issued), 'expires', text(expires))
redis.call('PEXPIREAT', KEYS[1], text(expires))
if KEYS[3] then redis.call('PEXPIREAT', KEYS[3], text(expires)) end
return expires - now
