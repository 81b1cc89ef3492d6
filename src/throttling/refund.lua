-- Gives the price of an SMS back to the budget, when upstream certainly did not accept it.
-- KEYS the budget's minutes, its quarter hours; both in {admission}
-- ARGV price in paise, the minute and the quarter hour that were charged
-- Returns 1.
-- One script, because a bucket that expired between a check and the decrement would come back without a time to live.
for i = 1, 2 do
  local charged = tonumber(redis.call('HGET', KEYS[i], ARGV[i + 1]) or 0)
  if charged >= tonumber(ARGV[1]) then
    redis.call('HINCRBY', KEYS[i], ARGV[i + 1], -tonumber(ARGV[1]))
  end
end
return 1
