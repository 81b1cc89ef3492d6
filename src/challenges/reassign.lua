-- Reassigns a draft to a provider, after certainly nothing was sent. The code is a new one: two providers' codes never live
-- under one nonce. When the new code is sent, it voids the live code.
-- KEYS challenge, codes; both in {pseudonym}
-- ARGV the owner of the lease, provider, fresh nonce, time to live (ms), the whole life of a challenge (ms)
-- Returns the code's life (ms), or 0 if the lease is no longer this request's.
-- One script, because a crash between the name and the nonce would leave one provider's code under another's name.
local owner, lease_until, created = unpack(redis.call('HMGET', KEYS[1], 'owner', 'until', 'created'))
local now = now_ms()
-- Another request may take a lease that has run out at any time, and then both would send.
if owner ~= ARGV[1] or now >= tonumber(lease_until) then return 0 end
local expires = math.min(now + tonumber(ARGV[4]), tonumber(created) + tonumber(ARGV[5]))
-- Younger than the code that was used, like any new code.
local issued = math.max(now, tonumber(redis.call('HGET', KEYS[2], 'used:issued') or -1) + 1)
redis.call('HSET', KEYS[1], 'provider', ARGV[2], 'nonce', ARGV[3], 'issued', text(issued), 'expires', text(expires),
  'sent', 'no')
redis.call('PEXPIREAT', KEYS[1], text(expires))
return expires - now
