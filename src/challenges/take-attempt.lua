-- Takes one attempt, before the code is looked at: of two hundred guesses at once, three are looked at, and a crash
-- between look and count gives none back.
-- KEYS challenge, codes, failed codes, cleared, failed codes of devices, end of devices, blocked; all in {pseudonym}
-- ARGV name of the Idempotency-Key's field in the challenge or '', fingerprint of the body, when the device's token was
--      issued (ms) or '', the device, limits of failed codes, those of devices; last who takes the key's place (a mark of
--      this request), and for how long (ms)
-- Returns {'taken', attempts left, failure (its timestamp), phone, nonce, upstream's id, its SMS, 'device' | 'phone': whose
--      failure it is counted as, ms since the number's last failure or -1, provider or '', ms for which it locks the number
--      if it is wrong or 0}, or {'expired'}, {'exhausted'}, {'locked', ms};
--      for a key that was used {'replay', phone}, {'incorrect', attempts left}, {'other body'}, {'in progress', ms}.
-- One script, because between a check and a count two replicas would both look with the last attempt.
local state, nonce, attempts, phone, upstream, expires, sms, issued, provider = unpack(redis.call('HMGET', KEYS[1],
  'state', 'nonce', 'attempts', 'phone', 'upstream', 'expires', 'sms', 'issued', 'provider'))
local now = now_ms()

-- A repeat gets the first answer. After a crash the place of the first stays taken for as long as a look can last.
local record = ARGV[1] ~= '' and redis.call('HGET', KEYS[1], ARGV[1])
if record then
  local print, outcome, value = string.match(record, '^([^:]+):([^:]+):(%d+)$')
  if print ~= ARGV[2] then return { 'other body' } end
  if outcome == '400' then return { 'incorrect', tonumber(value) } end
  if outcome == '410' then return { 'expired' } end
  if outcome == 'exhausted' then return { 'exhausted' } end
  if outcome == '200' then
    local again = now - tonumber(value) <= 60000 and not block_voids(KEYS[7], value)
    return again and { 'replay', phone } or { 'expired' }
  end
  if now < tonumber(value) then return { 'in progress', tonumber(value) - now } end
end

-- A 410 is kept for repeats as well, while there are not too many: it takes no attempt, so nothing else bounds them. That
-- of a pending challenge is not its last word.
local function gone(outcome, answer)
  if ARGV[1] ~= '' and state and state ~= 'pending' and redis.call('HLEN', KEYS[1]) < 64 then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. outcome .. ':0')
  end
  return { answer }
end

if state ~= 'open' or now >= tonumber(expires) then return gone('410', 'expired') end
-- A code that a newer one replaced, or that another request id has used, is void.
if redis.call('HGET', KEYS[2], 'live') ~= nonce then return gone('410', 'expired') end
-- A number that is blocked while its code is under way.
if block_voids(KEYS[7], issued) then return { 'expired' } end
if tonumber(attempts) <= 0 then return gone('exhausted', 'exhausted') end
local device = device_lives(KEYS[6], ARGV[3], ARGV[4])
local wait, by_device = codes_wait({ failed = KEYS[3], cleared = KEYS[4], device_failed = KEYS[5] }, now, 5, device)
if wait > 0 then return { 'locked', wait } end

-- Counted as failed until it turns out right: the count survives a crash in between.
local _, keep, longest, after = read_limits(5)
if by_device then _, keep, longest = read_limits(after) end
local failed = by_device and KEYS[5] or KEYS[3]
local last = redis.call('LINDEX', failed, -1)
local failure = window_record(failed, now, keep, longest)
local locks = by_device and windows_wait(failed, now, (read_limits(after))) or failed_wait(failed, KEYS[4], now, 5)
attempts = redis.call('HINCRBY', KEYS[1], 'attempts', -1)
if ARGV[1] ~= '' then
  local place = ':flight/' .. ARGV[#ARGV - 1] .. ':' .. text(now + tonumber(ARGV[#ARGV]))
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. place)
end
return {
  'taken', attempts, text(failure), phone, nonce, upstream, sms or '', by_device and 'device' or 'phone',
  last and math.max(0, now - last) or -1, provider or '', locks,
}
