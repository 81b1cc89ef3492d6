-- Opens a pending challenge for a person. Pending voids nothing yet: a stranger's send that fails must not void a
-- person's login. A locked number is refused here, before an SMS is paid for.
-- KEYS challenge, codes (hash: the live nonce and the next one), failed codes (list), cleared (time of a success);
--      all in {pseudonym}
-- ARGV fresh nonce, '1' when a code may be sent again, known secrets ',id,id,', time to live (ms), a code's whole
--      life (ms), attempts, encrypted phone number, limits of failed codes
-- Returns {'locked', ms}, or {'begun', nonce, life (ms)}.
-- One script, because two sends at once must agree on one code: the person would read the wrong one of two SMS.
local fresh, resend, known = ARGV[1], ARGV[2] == '1', ARGV[3]
local ttl, life, attempts, phone = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
local now = now_ms()

local wait = failed_wait(KEYS[3], KEYS[4], now, 8)
if wait > 0 then return { 'locked', wait } end

-- The code of `slot` again, while at least half of its life remains (SMS arrive out of order) and its secret is known.
local function again(slot)
  local nonce, issued, expires = unpack(redis.call('HMGET', KEYS[2], slot, slot .. ':issued', slot .. ':expires'))
  if not nonce or tonumber(expires) - now < ttl / 2 then return nil end
  if not string.find(known, ',' .. string.match(nonce, '^[^.]+') .. ',', 1, true) then return nil end
  return nonce, tonumber(issued), slot
end

local nonce, issued, slot
if resend then
  nonce, issued, slot = again('live')
  if not nonce then nonce, issued, slot = again('next') end
end
if not nonce then nonce, issued, slot = fresh, now, 'next' end

local expires = math.min(now + ttl, issued + life)
redis.call('HSET', KEYS[1], 'state', 'pending', 'nonce', nonce, 'issued', text(issued), 'expires', text(expires),
  'attempts', attempts, 'phone', phone)
redis.call('PEXPIREAT', KEYS[1], text(expires))
redis.call('HSET', KEYS[2], slot, nonce, slot .. ':issued', text(issued), slot .. ':expires', text(expires))
redis.call('PEXPIRE', KEYS[2], text(life))
return { 'begun', nonce, expires - now }
