-- Takes one attempt, before the code is looked at: of two hundred guesses at once, three are looked at, and a crash
-- between look and count gives none back.
-- KEYS challenge, codes, failed codes, cleared; all in {pseudonym}
-- ARGV name of the Idempotency-Key's field in the challenge or '', fingerprint of the body, limits of failed codes
-- Returns {'taken', attempts left, failure (its timestamp), phone, nonce, upstream's id}, or {'expired'},
--      {'exhausted'}, {'locked', ms}; for a key that was used {'replay', phone}, {'incorrect', attempts left},
--      {'other body'}, {'in progress', ms}.
-- One script, because between a check and a count two replicas would both look with the last attempt.
local state, nonce, attempts, phone, upstream, expires =
  unpack(redis.call('HMGET', KEYS[1], 'state', 'nonce', 'attempts', 'phone', 'upstream', 'expires'))
local now = now_ms()

-- A repeat gets the first answer. After a crash the place of the first stays taken for a minute.
local record = ARGV[1] ~= '' and redis.call('HGET', KEYS[1], ARGV[1])
if record then
  local print, outcome, value = string.match(record, '^([^:]+):([^:]+):(%d+)$')
  if print ~= ARGV[2] then return { 'other body' } end
  if outcome == '400' then return { 'incorrect', tonumber(value) } end
  if outcome == '410' then return { 'expired' } end
  if outcome == 'exhausted' then return { 'exhausted' } end
  if outcome == '200' then return now - tonumber(value) <= 60000 and { 'replay', phone } or { 'expired' } end
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
if tonumber(attempts) <= 0 then return gone('exhausted', 'exhausted') end
local wait = failed_wait(KEYS[3], KEYS[4], now, 3)
if wait > 0 then return { 'locked', wait } end

-- Counted as failed until it turns out right: the count survives a crash in between.
local _, keep, longest = read_limits(3)
local failure = window_record(KEYS[3], now, keep, longest)
attempts = redis.call('HINCRBY', KEYS[1], 'attempts', -1)
if ARGV[1] ~= '' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':flight:' .. text(now + 60000)) end
return { 'taken', attempts, text(failure), phone, nonce, upstream }
