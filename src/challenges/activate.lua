-- Opens a pending challenge to verification, once its SMS is accepted or may have been. From here on its code is the
-- live one, and every challenge of another code is void.
-- KEYS challenge, codes, and under an Idempotency-Key its record; all in {pseudonym}
-- ARGV upstream's id or '', delivery, upstream's expiry (ms, or -1), upstream's attempts (or -1), ms until a resend,
--      a code's whole life (ms), the SMS in the ledger or '', '1' when its code may have been sent
-- Returns {expires at (ms), attempts left, resend at (ms)}, or false when the store lost the challenge meanwhile.
-- One script, because of two sends that finish at once the later code must be the live one on every replica.
local nonce, issued, expires, attempts = unpack(redis.call('HMGET', KEYS[1], 'nonce', 'issued', 'expires', 'attempts'))
if not nonce then return false end
local now = now_ms()
issued, expires, attempts = tonumber(issued), tonumber(expires), tonumber(attempts)
-- Upstream may be stricter than we are, never more generous. An expiry that has passed already is a wrong clock.
local theirs = tonumber(ARGV[3])
if theirs > now then expires = math.min(expires, theirs) end
if tonumber(ARGV[4]) > 0 then attempts = math.min(attempts, tonumber(ARGV[4])) end
local resend_at = now + tonumber(ARGV[5])

redis.call('HSET', KEYS[1], 'state', 'open', 'upstream', ARGV[1], 'delivery', ARGV[2], 'expires', text(expires),
  'attempts', attempts, 'resend', text(resend_at), 'sms', ARGV[7])
redis.call('PEXPIREAT', KEYS[1], text(expires))

local live, live_issued, next, used = unpack(redis.call('HMGET', KEYS[2], 'live', 'live:issued', 'next', 'used:issued'))
-- A code that was used, or is older than a used one, stays void when its SMS was still under way.
local newest = math.max(tonumber(live_issued or 0), tonumber(used or -1) + 1)
-- A code that nobody was sent must not void one that somebody was.
local sent = ARGV[8] == '1'
if sent and nonce == live then
  redis.call('HSET', KEYS[2], 'live:expires', text(expires))
elseif sent and issued >= newest then
  redis.call('HSET', KEYS[2], 'live', nonce, 'live:issued', text(issued), 'live:expires', text(expires))
  if nonce == next then redis.call('HDEL', KEYS[2], 'next', 'next:issued', 'next:expires') end
  redis.call('PEXPIREAT', KEYS[2], text(issued + tonumber(ARGV[6])))
end
if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then
  local answer = text(expires) .. ':' .. attempts .. ':' .. text(resend_at) .. ':' .. ARGV[2]
  redis.call('HSET', KEYS[3], 'state', 'done', 'answer', answer)
end
return { expires, attempts, resend_at }
