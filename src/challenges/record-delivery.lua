-- Records what became of a challenge's SMS, once it is known.
-- KEYS challenge; in {pseudonym}
-- ARGV the SMS in the ledger, delivery, ms until the number may ask again or -1 if that did not change
-- Returns 1, or 0 if the challenge is gone or another SMS's, or the delivery was known before.
-- One script, because a challenge that expired between a check and the write would come back without a time to live.
local sms, delivery, resend_at = unpack(redis.call('HMGET', KEYS[1], 'sms', 'delivery', 'resend'))
if sms ~= ARGV[1] then return 0 end
-- A replay of the send repeats what its first response said.
redis.call('HSETNX', KEYS[1], 'first-said', delivery .. ':' .. resend_at)
-- Needed even if another replica recorded the delivery first: only one replica was told when the number may ask again.
if tonumber(ARGV[3]) >= 0 then redis.call('HSET', KEYS[1], 'resend', text(now_ms() + tonumber(ARGV[3]))) end
if delivery == 'delivered' or delivery == 'failed' then return 0 end
redis.call('HSET', KEYS[1], 'delivery', ARGV[2])
return 1
