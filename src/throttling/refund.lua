-- Gives the price of an SMS back to the budget, if upstream certainly did not accept it. Takes it from the ledger's totals,
-- and from what the abuse control counts as sent: its code cannot come back, and that is no sign of abuse.
-- KEYS the budget's minutes, its quarter hours, the ledger, the abuse control, the devices' list of timestamps, and under an
--      Idempotency-Key the admission entry; all in {admission}
-- ARGV the `send` that admission.lua returned, as JSON; how long the admission entry is kept (ms)
-- Returns 1, or 0 if a later request under the key was here, or the price was given back before.
-- One script, because a bucket that expired between a check and the decrement would come back without a time to live.
local send = cjson.decode(ARGV[1])
if KEYS[6] then
  local stored = cjson.decode(redis.call('GET', KEYS[6]) or '{}')
  local superseded = stored.createdAt ~= send.createdAt or stored.token ~= send.token
  if superseded or not stored.charged then return 0 end
  send = stored
end
for i, bucket in ipairs({ send.minute, send.quarter }) do
  if tonumber(redis.call('HGET', KEYS[i], bucket) or 0) >= send.price then
    redis.call('HINCRBY', KEYS[i], bucket, -send.price)
  end
end
for _, scope in ipairs(send.scopes) do abuse_count(KEYS[4], scope, 's', send.at, nil, -1) end
ledger_append(KEYS[3], now_ms(), 'event', 'refunded', 'sms', send.entry)
usage_add(KEYS[3], send.at, 'refunded', 1)
usage_add(KEYS[3], send.at, 'cost', -100 * send.price)
send.charged = false
-- A number's own limit keeps counting, or a broken upstream would switch it off. That of its devices does not: strangers
-- could use up the owner's allowance by using up the vendor's limit of the number.
if send.allowance == 'device' then
  redis.call('LREM', KEYS[5], -1, send.place)
  send.allowance, send.place = nil, nil
end
if KEYS[6] then redis.call('SET', KEYS[6], cjson.encode(send), 'PX', ARGV[2]) end
return 1
