-- Claims the right to send the webhook of alerts of one type, or counts them for the next one.
-- KEYS that one was sent lately, how many were held back since; both in {alerts}
-- ARGV how many alerts these are, how long one speaks for all (ms), for how long to count (ms)
-- Returns how many others this one speaks for, or -1 when one was sent lately.
-- One script, because two replicas would both see that nothing was sent, or one would count what another just told.
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[2]) then
  redis.call('INCRBY', KEYS[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  return -1
end
local held = tonumber(redis.call('GET', KEYS[2]) or 0)
redis.call('DEL', KEYS[2])
return held + tonumber(ARGV[1]) - 1
