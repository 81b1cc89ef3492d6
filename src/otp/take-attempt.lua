-- Takes one attempt, before the code is looked at: of two hundred guesses at once, three are looked at, and a crash
-- between look and count gives none back.
-- KEYS challenge, codes, failed codes, cleared; all in {pseudonym}
-- ARGV limits of failed codes
-- Returns {'taken', attempts left, failure (its timestamp), phone, nonce, upstream's id}, or {'expired'},
--      {'exhausted'}, {'locked', ms}.
-- One script, because between a check and a count two replicas would both look with the last attempt.
local state, nonce, attempts, phone, upstream, expires =
  unpack(redis.call('HMGET', KEYS[1], 'state', 'nonce', 'attempts', 'phone', 'upstream', 'expires'))
local now = now_ms()
if state ~= 'open' or now >= tonumber(expires) then return { 'expired' } end
-- A code that a newer one replaced, or that another request id has used, is void.
if redis.call('HGET', KEYS[2], 'live') ~= nonce then return { 'expired' } end
if tonumber(attempts) <= 0 then return { 'exhausted' } end
local wait = failed_wait(KEYS[3], KEYS[4], now, 1)
if wait > 0 then return { 'locked', wait } end

-- Counted as failed until it turns out right: the count survives a crash in between.
local _, keep, longest = read_limits(1)
local failure = window_record(KEYS[3], now, keep, longest)
attempts = redis.call('HINCRBY', KEYS[1], 'attempts', -1)
return { 'taken', attempts, text(failure), phone, nonce, upstream }
