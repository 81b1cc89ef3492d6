-- Uses a challenge up, once: of two right answers at once, one gets the session. The code is void from then on, for every
-- request id that carried it. The number's failures are cleared from windows of an hour or less, and
-- none of them counts as consecutive any more.
-- KEYS challenge, codes, the list that the attempt was counted in, cleared, blocked, known, failed codes of clients
--      without a device token; all in {pseudonym}
-- ARGV the failure that the attempt was counted as, name of the Idempotency-Key's field or '', fingerprint of the body, how
--      long a login counts (ms), when the challenge was created (ms)
-- Returns 1, or 0 when it was used or replaced meanwhile.
-- One script, because between a check and a write two replicas would both open a session.
local state, nonce, issued, created = unpack(redis.call('HMGET', KEYS[1], 'state', 'nonce', 'issued', 'created'))
-- An Idempotency-Key that is used again after its challenge expired gives a new challenge the same name.
local void = state ~= 'active' or created ~= ARGV[5] or redis.call('HGET', KEYS[2], 'live') ~= nonce
if void or block_voids(KEYS[5], issued) then
  -- The code was right, although another request used it first: this attempt was no failure.
  redis.call('LREM', KEYS[3], -1, ARGV[1])
  return 0
end
local now = now_ms()
-- The first write: where memory is full it fails, and nothing is used up.
redis.call('HSET', KEYS[1], 'state', 'used')
redis.call('LREM', KEYS[3], -1, ARGV[1])
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. ':200:' .. text(now))
  -- The repeat of a code that came at its last moment must find it.
  redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), 61000))
end
-- First the new field: a hash that was emptied is gone, and would come back without its time to live.
redis.call('HSET', KEYS[2], 'used:issued', issued)
redis.call('HDEL', KEYS[2], 'live', 'live:issued', 'live:expires')
-- Only where there are failures to clear, and for as long as they are kept: most numbers have none.
local kept_for = redis.call('PTTL', KEYS[7])
if kept_for > 0 then redis.call('SET', KEYS[4], text(now), 'PX', text(kept_for)) end
redis.call('SET', KEYS[6], '1', 'PX', ARGV[4])
return 1
