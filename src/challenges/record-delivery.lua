-- Notes what became of a challenge's SMS, once it is known.
-- KEYS challenge; in {pseudonym}
-- ARGV delivery, ms until the number may ask again, or -1: as it was
-- Returns 1, or 0 when it is gone, or was known before.
-- One script, because a challenge that expired between a check and the write would come back without a time to live.
local delivery = redis.call('HGET', KEYS[1], 'delivery')
if not delivery then return 0 end
-- Also when another replica was first with the news: one alone was told when the number may ask again.
if tonumber(ARGV[2]) >= 0 then redis.call('HSET', KEYS[1], 'resend', text(now_ms() + tonumber(ARGV[2]))) end
if delivery == 'delivered' or delivery == 'failed' then return 0 end
redis.call('HSET', KEYS[1], 'delivery', ARGV[1])
return 1
