-- Releases the lease of a send that failed, so that a repeat under its Idempotency-Key may resume it.
-- KEYS challenge, codes; both in {pseudonym}
-- ARGV the owner of the lease; 'maybe' if the code may have been sent, 'no' if this request did not send it, 'refused' if
--      admission refused the send
-- Returns 1, or 0 if the lease is another request's, or the challenge is active or gone.
-- One script, because a challenge that expired between a check and the write would come back without a time to live.
local owner, token, nonce = unpack(redis.call('HMGET', KEYS[1], 'owner', 'token', 'nonce'))
-- The challenge may be active, if only the answer of activate was lost: then a repeat must get the replay. A release that is tried
-- again in the background may come when a repeat is under way: that lease is not this request's.
if owner ~= ARGV[1] then return 0 end
if ARGV[2] == 'refused' and token == '1' then
  -- No other request ever held this draft, so a refused send leaves nothing behind: otherwise an attacker could fill Redis with sends
  -- that are never paid for. A code that was never sent goes with the last draft that has it.
  redis.call('DEL', KEYS[1])
  if redis.call('HGET', KEYS[2], 'next') == nonce and redis.call('HINCRBY', KEYS[2], 'next:drafts', -1) == 0 then
    redis.call('HDEL', KEYS[2], 'next', 'next:issued', 'next:expires', 'next:drafts')
  end
else
  redis.call('HDEL', KEYS[1], 'owner', 'until')
  if ARGV[2] == 'maybe' then redis.call('HSET', KEYS[1], 'sent', 'maybe') end
end
return 1
