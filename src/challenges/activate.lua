-- Activates a draft, once its SMS is accepted or may have been. From here on its code is the live one, every challenge of
-- another code is void, and repeats under its Idempotency-Key are replays.
-- KEYS challenge, codes; both in {pseudonym}
-- ARGV the owner of the lease, upstream's id or '', delivery, upstream's expiry (ms, or -1), upstream's attempts (or -1),
--      ms until a resend, a code's whole life (ms), the SMS in the ledger or '', keyed hash of the client address
-- Returns {expires at (ms), attempts left, resend at (ms)}; or {} if another request took the lease meanwhile, or false if
--      the store lost the challenge.
-- One script, because of two sends that end at once the later code must be the live one on every replica.
local owner, nonce, issued, expires, attempts =
  unpack(redis.call('HMGET', KEYS[1], 'owner', 'nonce', 'issued', 'expires', 'attempts'))
if not nonce then return false end
if owner ~= ARGV[1] then return {} end
local now = now_ms()
issued, expires, attempts = tonumber(issued), tonumber(expires), tonumber(attempts)
-- Upstream may be stricter than this service, never more generous. An expiry in the past is the fault of a wrong clock.
local theirs = tonumber(ARGV[4])
if theirs > now then expires = math.min(expires, theirs) end
if tonumber(ARGV[5]) > 0 then attempts = math.min(attempts, tonumber(ARGV[5])) end
local resend_at = now + tonumber(ARGV[6])

redis.call('HSET', KEYS[1], 'state', 'active', 'upstream', ARGV[2], 'delivery', ARGV[3], 'expires', text(expires),
  'attempts', attempts, 'resend', text(resend_at), 'sms', ARGV[8], 'origin', ARGV[9])
redis.call('HDEL', KEYS[1], 'owner', 'until', 'token', 'sent')
redis.call('PEXPIREAT', KEYS[1], text(expires))

local live, live_issued, next, used = unpack(redis.call('HMGET', KEYS[2], 'live', 'live:issued', 'next', 'used:issued'))
if nonce == live then
  redis.call('HSET', KEYS[2], 'live:expires', text(expires))
-- A code that was used, or is older than a used one, stays void if its SMS was still under way.
elseif issued >= math.max(tonumber(live_issued or 0), tonumber(used or -1) + 1) then
  redis.call('HSET', KEYS[2], 'live', nonce, 'live:issued', text(issued), 'live:expires', text(expires))
  if nonce == next then redis.call('HDEL', KEYS[2], 'next', 'next:issued', 'next:expires', 'next:drafts') end
  redis.call('PEXPIREAT', KEYS[2], text(issued + tonumber(ARGV[7])))
end
return { expires, attempts, resend_at }
