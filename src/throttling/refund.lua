-- Gives the price of an SMS back to the budget, when upstream certainly did not accept it, takes it from the ledger's
-- totals, and from what the abuse control waits for: its code cannot come back, and nobody is to blame for that.
-- KEYS the budget's minutes, its quarter hours, the ledger, the abuse control, the devices' list of timestamps, and under an
--      Idempotency-Key the send (see admission.lua); all in {admission}
-- ARGV price in paise, the minute and the quarter hour that were charged, ledger entry, timestamp, the scopes of the abuse control
--      as a JSON array, 'phone' | 'device': the list that it was counted in, which of the key's requests this is
-- Returns 1, or 0 when a repeat has it in hand by now, or it was given back.
-- One script, because a bucket that expired between a check and the decrement would come back without a time to live.
local send, price, place = KEYS[6], ARGV[1], ARGV[5]
if send then
  local turn, charged
  turn, charged, place, price = unpack(redis.call('HMGET', send, 'turn', 'charged', 'place', 'price'))
  if turn ~= ARGV[8] or charged ~= '1' then return 0 end
  redis.call('HSET', send, 'charged', '0')
end
price = tonumber(price)
for i = 1, 2 do
  local charged = tonumber(redis.call('HGET', KEYS[i], ARGV[i + 1]) or 0)
  if charged >= price then
    redis.call('HINCRBY', KEYS[i], ARGV[i + 1], -price)
  end
end
-- A number's own limit keeps counting, or a broken upstream would switch it off. That of its devices does not: strangers
-- who use up the vendor's limit of the number would use up the owner's allowance with it.
if ARGV[7] == 'device' then
  redis.call('LREM', KEYS[5], -1, place)
  if send then redis.call('HDEL', send, 'allowance') end
end
for _, scope in ipairs(cjson.decode(ARGV[6])) do abuse_count(KEYS[4], scope, 's', tonumber(ARGV[5]), nil, -1) end
ledger_append(KEYS[3], now_ms(), 'event', 'refunded', 'sms', ARGV[4])
usage_add(KEYS[3], tonumber(ARGV[5]), 'refunded', 1)
usage_add(KEYS[3], tonumber(ARGV[5]), 'cost', -100 * price)
return 1
