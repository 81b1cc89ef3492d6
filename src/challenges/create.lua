-- Opens a pending challenge for a person. Pending voids nothing yet: a stranger's send that fails must not void a
-- person's login. A locked number is refused here, before an SMS is paid for.
-- KEYS challenge, codes (hash: the live nonce and the next one), failed codes (list), cleared (time of a success), failed
--      codes of devices (list), end of devices, blocked, known (it logged in within 30 days), and under an
--      Idempotency-Key its record (hash: state, until, owner, turn, request, answer, unsent); all in {pseudonym}
-- ARGV fresh nonce, '1' when a code may be sent again, known secrets ',id,id,', time to live (ms), a code's whole
--      life (ms), attempts, encrypted phone number, the challenge's own part of the request id, when the device's token
--      was issued (ms) or '', the device, how long a login counts (ms), the provider that is asked first, limits of failed
--      codes, those of devices; last who takes the key's place (a mark of this request), and for how long (ms)
-- Returns {'locked', ms}, {'blocked'}, or {'begun', nonce, life (ms), part of the request id, 1 by a device's
--      token, 1 when the number logged in before, provider, 1 when that may have sent it, 1 when its
--      code is another one than that time, which of the key's requests this is}; for a key that was used {'replay', part of
--      the request id, answer} or {'in progress', ms}.
-- One script, because two sends at once must agree on one code: the person would read the wrong one of two SMS. And of
-- two requests under one key one must see the other.
local fresh, resend, known = ARGV[1], ARGV[2] == '1', ARGV[3]
local ttl, life, attempts, phone, provider = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[12]
local now = now_ms()
local owner, place_until = ARGV[#ARGV - 1], text(now + tonumber(ARGV[#ARGV]))

local record, request = KEYS[9], ARGV[8]
local state, taken_until, first, answer, unsent
if record then
  state, taken_until, first, answer, unsent =
    unpack(redis.call('HMGET', record, 'state', 'until', 'request', 'answer', 'unsent'))
  if state == 'done' then return { 'replay', first, answer } end
  -- After a crash the place of the first stays taken for as long as a send can last.
  if state == 'flight' and now < tonumber(taken_until) then return { 'in progress', taken_until - now } end
end

if redis.call('GET', KEYS[7]) == 'blocked' then return { 'blocked' } end
local device = device_lives(KEYS[6], ARGV[9], ARGV[10])
local wait = codes_wait({ failed = KEYS[3], cleared = KEYS[4], device_failed = KEYS[5] }, now, 13, device)
if wait > 0 then return { 'locked', wait } end
-- The device's token says so too, when Redis was lost since.
local returning = redis.call('EXISTS', KEYS[8]) == 1 or (device and now - tonumber(ARGV[9]) <= tonumber(ARGV[11]))

local live_issued, used = unpack(redis.call('HMGET', KEYS[2], 'live:issued', 'used:issued'))
-- A new code is younger than the one that was used, also within one millisecond: else it would be taken for void.
local youngest = math.max(now, tonumber(used or -1) + 1)
-- Whether this service makes the code of a nonce, and still can: one that a provider made names no secret.
local function derives(nonce) return string.find(known, ',' .. string.match(nonce, '^[^.]+') .. ',', 1, true) end

-- A code of ours that is older than the live one, or than one that was used, would be void when it arrives.
local function void(issued) return tonumber(issued) < math.max(tonumber(live_issued or 0), tonumber(used or -1) + 1) end

-- The code of `slot` again, while at least half of its life remains (SMS arrive out of order) and it can be derived.
local function again(slot)
  local nonce, issued, expires = unpack(redis.call('HMGET', KEYS[2], slot, slot .. ':issued', slot .. ':expires'))
  if not nonce or tonumber(expires) - now < ttl / 2 or not derives(nonce) then return nil end
  if slot == 'next' and void(issued) then return nil end
  return nonce, tonumber(issued), slot
end

-- The code that is sent now.
local function code()
  local nonce, issued, slot
  if resend then
    nonce, issued, slot = again('live')
    if not nonce then nonce, issued, slot = again('next') end
  end
  if not nonce then return fresh, youngest, 'next' end
  return nonce, issued, slot
end

-- A repeat of one that failed resumes it: the same challenge, so the same code under the same key of upstream, by the
-- provider that may have sent it.
if state then
  local pending = string.sub(KEYS[1], 1, -#request - 1) .. first
  local stage, nonce, issued, expires, by =
    unpack(redis.call('HMGET', pending, 'state', 'nonce', 'issued', 'expires', 'provider'))
  if stage == 'pending' and tonumber(expires) > now and not block_voids(KEYS[7], issued) then
    local renewed = 0
    local bound = not (state == 'released' and unsent == '1')
    local ours = by == provider and resend and derives(nonce)
    -- Certainly nothing was sent: it begins with the first provider again, under the same code where that was ours. And where
    -- that is void by now, because the person got another one meanwhile, under one that is not.
    if (ours and void(issued)) or not (ours or bound) then
      by, nonce, issued = provider, code()
      renewed = 1
      redis.call('HSET', pending, 'provider', by, 'nonce', nonce, 'issued', text(issued))
    end
    -- A full life, as far as a code's whole life allows.
    expires = math.min(now + ttl, tonumber(issued) + life)
    redis.call('HSET', pending, 'expires', text(expires))
    redis.call('PEXPIREAT', pending, text(expires))
    -- What was known before, should the answer to this be lost: a try that died may have sent it.
    redis.call('HSET', record, 'state', 'flight', 'until', place_until, 'owner', owner, 'unsent', bound and 0 or 1)
    redis.call('PEXPIREAT', record, text(expires))
    return {
      'begun', nonce, expires - now, first, device and 1 or 0, returning and 1 or 0, by or '', bound and 1 or 0, renewed,
      redis.call('HINCRBY', record, 'turn', 1),
    }
  end
end

local nonce, issued, slot = code()
local expires = math.min(now + ttl, issued + life)
redis.call('HSET', KEYS[1], 'state', 'pending', 'nonce', nonce, 'issued', text(issued), 'expires', text(expires),
  'attempts', attempts, 'phone', phone, 'provider', provider)
redis.call('PEXPIREAT', KEYS[1], text(expires))
-- The live code's life grows only when it is sent again. What a provider makes is never sent again.
if slot == 'next' and resend then
  redis.call('HSET', KEYS[2], 'next', nonce, 'next:issued', text(issued), 'next:expires', text(expires))
end
redis.call('PEXPIRE', KEYS[2], text(life))
if record then
  -- Nothing was sent yet, should even the answer to this be lost.
  redis.call('HSET', record, 'state', 'flight', 'until', place_until, 'owner', owner, 'request', request, 'turn', 1,
    'unsent', 1)
  redis.call('PEXPIREAT', record, text(expires))
end
return { 'begun', nonce, expires - now, request, device and 1 or 0, returning and 1 or 0, provider, 0, 0, 1 }
