-- Gives the price of an SMS back to the budget, when upstream certainly did not accept it, takes it from the ledger's
-- totals, and from what the guard waits for: its code cannot come back, and nobody is to blame for that.
-- KEYS the budget's minutes, its quarter hours, the ledger, the guard, the devices' list of timestamps, and under an
--      Idempotency-Key the send (see admission.lua); all in {admission}
-- ARGV price in paise, the minute and the quarter hour that were charged, ledger entry, timestamp, the scopes of the guard
--      as a JSON array, 'phone' | 'device': the list that it was counted in, who has the send in hand
-- Returns 1, or 0 when a repeat has it in hand by now.
-- One script, because a bucket that expired between a check and the decrement would come back without a time to live.
local send = KEYS[6]
if send then
  if redis.call('HGET', send, 'by') ~= ARGV[8] then return 0 end
  redis.call('HSET', send, 'charged', '0')
end
local place = send and redis.call('HGET', send, 'place') or ARGV[5]
for i = 1, 2 do
  local charged = tonumber(redis.call('HGET', KEYS[i], ARGV[i + 1]) or 0)
  if charged >= tonumber(ARGV[1]) then
    redis.call('HINCRBY', KEYS[i], ARGV[i + 1], -tonumber(ARGV[1]))
  end
end
-- A number's own limit keeps counting, or a broken upstream would switch it off. That of its devices does not: strangers
-- who use up the vendor's limit of the number would use up the owner's allowance with it.
if ARGV[7] == 'device' then redis.call('LREM', KEYS[5], -1, place) end
for _, scope in ipairs(cjson.decode(ARGV[6])) do guard_count(KEYS[4], scope, 's', tonumber(ARGV[5]), nil, -1) end
ledger_append(KEYS[3], now_ms(), 'event', 'refunded', 'sms', ARGV[4])
usage_add(KEYS[3], tonumber(ARGV[5]), 'refunded', 1)
usage_add(KEYS[3], tonumber(ARGV[5]), 'cost', -100 * tonumber(ARGV[1]))
return 1
