-- Creates a challenge as a draft, or finds the challenge that an earlier request under the same Idempotency-Key created:
-- both requests have the same request id. A draft voids no code: a stranger's send that fails must not void a user's
-- login. A locked number is refused here, before an SMS is paid for. docs/design.md draws the states.
-- KEYS challenge (hash), codes (hash: the live nonce and the next one), failed codes (list), cleared (time of a success),
--      failed codes of devices (list), device revocations, blocked, known (a login not long ago), unlocks (list); all in
--      {pseudonym}
-- ARGV fresh nonce, '1' if a code may be sent again, ids of the known secrets ',id,id,', time to live (ms), a code's whole
--      life (ms), attempts, encrypted phone number, when the device token was issued (ms) or '', the device, the first
--      provider, the owner of the lease (a mark of this request), the length of the lease (ms), limits of failed codes,
--      limits of failed codes of devices
-- Returns a JSON object with a `kind`: `new` or `resumed` with createdAt, fencingToken, maybeSent, nonce, lifeMs, provider,
--      byDevice, returning, needsProof (a proof of work comes first); `replay` with expiresAt, attemptsLeft, resendAt,
--      delivery; `in_progress` or `locked` with ms; `blocked`.
-- One script, because two sends at once must agree on one code: the user would read the wrong one of two SMS. And of two
-- requests under one key, one must see the other.
local fresh, resend, secrets, first_provider = ARGV[1], ARGV[2] == '1', ARGV[3], ARGV[10]
local ttl, life, lease_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[12])
local now = now_ms()
local state, created, token, lease_until, sent, nonce, issued, provider = unpack(redis.call('HMGET', KEYS[1],
  'state', 'created', 'token', 'until', 'sent', 'nonce', 'issued', 'provider'))

if state == 'active' or state == 'used' then
  local expires, attempts, resend_at, delivery, first_said =
    unpack(redis.call('HMGET', KEYS[1], 'expires', 'attempts', 'resend', 'delivery', 'first-said'))
  if first_said then delivery, resend_at = string.match(first_said, '^(%a+):(%d+)$') end
  return cjson.encode({
    kind = 'replay', expiresAt = tonumber(expires), attemptsLeft = tonumber(attempts), resendAt = tonumber(resend_at),
    delivery = delivery,
  })
end
-- After a crash the lease lasts for as long as a send can last.
if lease_until and now < tonumber(lease_until) then return cjson.encode({ kind = 'in_progress', ms = lease_until - now }) end

if redis.call('GET', KEYS[7]) == 'blocked' then return cjson.encode({ kind = 'blocked' }) end
local device = device_lives(KEYS[6], ARGV[8], ARGV[9])
local failures = { failed = KEYS[3], cleared = KEYS[4], device_failed = KEYS[5], unlocks = KEYS[9] }
local wait = codes_wait(failures, now, 13, device)
if wait > 0 then return cjson.encode({ kind = 'locked', ms = wait }) end
-- An authentic device token suffices, also if Redis lost its data since: it proves an earlier login.
local returning = redis.call('EXISTS', KEYS[8]) == 1 or device

local live_issued, used = unpack(redis.call('HMGET', KEYS[2], 'live:issued', 'used:issued'))
-- A new code is younger than the code that was used, also within one millisecond: otherwise it would count as void.
local after_used = tonumber(used or -1) + 1
-- Whether this service makes the code of a nonce, and still can: the nonce of a provider's code names no secret.
local function derives(of) return string.find(secrets, ',' .. string.match(of, '^[^.]+') .. ',', 1, true) end
-- A code of this service that is older than the live code, or than a used code, would be void when it arrives.
local function void(at) return tonumber(at) < math.max(tonumber(live_issued or 0), after_used) end

-- The code of `slot` again, while at least half of its life remains (SMS arrive out of order) and it can be derived.
local function again(slot)
  local its_nonce, its_issued, expires = unpack(redis.call('HMGET', KEYS[2], slot, slot .. ':issued', slot .. ':expires'))
  if not its_nonce or tonumber(expires) - now < ttl / 2 or not derives(its_nonce) then return nil end
  if slot == 'next' and void(its_issued) then return nil end
  return its_nonce, tonumber(its_issued), slot
end

local resumed = state == 'draft' and not block_voids(KEYS[7], issued)
-- A request that let its lease run out may have sent the code: the code and its provider stay as they are.
local maybe_sent = resumed and (lease_until or sent == 'maybe') and true or false
if not resumed then created, token = text(now), 0 end
local kept = resumed and (maybe_sent or (provider == first_provider and resend and derives(nonce) and not void(issued)))
local slot
if not kept then
  provider, nonce = first_provider, nil
  if resend then
    nonce, issued, slot = again('live')
    if not nonce then nonce, issued, slot = again('next') end
  end
  if not nonce then
    nonce, issued, slot = fresh, math.max(now, after_used), 'next'
    redis.call('HDEL', KEYS[2], 'next:drafts')
  end
end
token = tonumber(token) + 1
-- A resumed send gets a full time to live, as far as the whole life of its code and of its challenge allows.
local expires = math.min(now + ttl, tonumber(issued) + life, tonumber(created) + life)
redis.call('HSET', KEYS[1], 'state', 'draft', 'created', created, 'token', token, 'owner', ARGV[11],
  'until', text(now + lease_ms), 'sent', maybe_sent and 'maybe' or 'no', 'nonce', nonce, 'issued', text(issued),
  'expires', text(expires), 'attempts', ARGV[6], 'phone', ARGV[7], 'provider', provider)
redis.call('PEXPIREAT', KEYS[1], text(expires))
if slot then
  -- The live code's life grows only when it is sent again. A provider's code is never sent again.
  if slot == 'next' and resend then
    redis.call('HSET', KEYS[2], 'next', nonce, 'next:issued', text(issued), 'next:expires', text(expires))
    -- release.lua removes the code with its last draft, if admission refused all of them.
    redis.call('HINCRBY', KEYS[2], 'next:drafts', 1)
  end
  redis.call('PEXPIRE', KEYS[2], text(life))
end
return cjson.encode({
  kind = resumed and 'resumed' or 'new', createdAt = tonumber(created), fencingToken = token, maybeSent = maybe_sent,
  nonce = nonce, lifeMs = expires - now, provider = provider, byDevice = device and true or false,
  returning = returning and true or false, needsProof = not device and failures_need_proof(failures, now, 13),
})
