-- Takes one attempt, before the code is checked: of two hundred guesses at once, three are checked, and a crash between
-- check and count gives none back.
-- KEYS challenge, codes, failed codes, cleared, failed codes of devices, device revocations, blocked, unlocks; all in
--      {pseudonym}
-- ARGV name of the Idempotency-Key's field in the challenge or '', fingerprint of the body, when the device token was issued
--      (ms) or '', the device, limits of failed codes, those of devices; last the owner of the key's lease (a mark of this
--      request), and the length of the lease (ms)
-- Returns a JSON object with a `kind`: `taken` with attemptsLeft, failure (its timestamp), phone (encrypted), nonce,
--      provider, upstreamId, sms, createdAt, allowance ('device' or 'phone': where the failure is counted), sinceLastFailureMs
--      (or -1), lockMs (for how long the number is locked if the code is wrong, or 0); `expired`; `exhausted`; `locked` with
--      ms; for a key that was used `replay` with phone and createdAt, `incorrect` with attemptsLeft, `other_body`,
--      `in_progress`.
-- One script, because between a check and a count two replicas would both check a code with the last attempt.
local state, nonce, attempts, phone, upstream, expires, sms, issued, provider, created = unpack(redis.call('HMGET',
  KEYS[1], 'state', 'nonce', 'attempts', 'phone', 'upstream', 'expires', 'sms', 'issued', 'provider', 'created'))
local now = now_ms()
local function answer(kind, fields)
  fields = fields or {}
  fields.kind = kind
  return cjson.encode(fields)
end

-- A repeat gets the first answer. After a crash the lease of the first request lasts for as long as a check can last.
local record = ARGV[1] ~= '' and redis.call('HGET', KEYS[1], ARGV[1])
if record then
  local print, outcome, value = string.match(record, '^([^:]+):([^:]+):(%d+)$')
  if print ~= ARGV[2] then return answer('other_body') end
  if outcome == '400' then return answer('incorrect', { attemptsLeft = tonumber(value) }) end
  if outcome == '410' then return answer('expired') end
  if outcome == 'exhausted' then return answer('exhausted') end
  if outcome == '200' then
    local again = now - tonumber(value) <= 60000 and not block_voids(KEYS[7], value)
    return again and answer('replay', { phone = phone, createdAt = tonumber(created) }) or answer('expired')
  end
  if now < tonumber(value) then return answer('in_progress') end
end

-- A 410 is kept for repeats as well, up to a bound: a 410 takes no attempt, so nothing else bounds their number. The 410 of a
-- draft is not kept, because the draft may become active.
local function gone(outcome, kind)
  if ARGV[1] ~= '' and state and state ~= 'draft' and redis.call('HLEN', KEYS[1]) < 64 then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. outcome .. ':0')
  end
  return answer(kind)
end

if state ~= 'active' or now >= tonumber(expires) then return gone('410', 'expired') end
-- A code that a newer one replaced, or that another request id has used, is void.
if redis.call('HGET', KEYS[2], 'live') ~= nonce then return gone('410', 'expired') end
-- A number that is blocked while its code is under way.
if block_voids(KEYS[7], issued) then return answer('expired') end
if tonumber(attempts) <= 0 then return gone('exhausted', 'exhausted') end
local device = device_lives(KEYS[6], ARGV[3], ARGV[4])
local failures = { failed = KEYS[3], cleared = KEYS[4], device_failed = KEYS[5], unlocks = KEYS[8] }
local wait = codes_wait(failures, now, 5, device)
if wait > 0 then return answer('locked', { ms = wait }) end

-- Counted as failed until it turns out right: the count survives a crash in between.
local failure, last = count_failure(failures, now, 5, device)
local locks = codes_wait(failures, now, 5, device)
attempts = redis.call('HINCRBY', KEYS[1], 'attempts', -1)
if ARGV[1] ~= '' then
  local lease = ':flight/' .. ARGV[#ARGV - 1] .. ':' .. text(now + tonumber(ARGV[#ARGV]))
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. lease)
end
return answer('taken', {
  attemptsLeft = attempts, failure = text(failure), phone = phone, nonce = nonce, provider = provider, upstreamId = upstream,
  sms = sms, createdAt = tonumber(created), allowance = device and 'device' or 'phone',
  sinceLastFailureMs = last and math.max(0, now - last) or -1, lockMs = locks,
})
