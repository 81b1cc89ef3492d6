-- Publishes ids of sessions that are about to end, for resource servers that verify tokens by themselves.
-- KEYS {revocations}: sorted set, id by time
-- ARGV how long to keep them (ms), 'new' or 'again' (an id that is published keeps its time), ids ...
-- Returns 1.
-- One script, because ids that came without their times or their expiry would never be read, or for ever.
local now, keep = now_ms(), tonumber(ARGV[1])
-- First what is never refused: a script that has written may go on writing while Redis is full, and people must be able
-- to log out then, too.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(now - keep))
for i = 3, #ARGV do
  -- A logout can be repeated for as long as its token is known. The repeats must not publish the session again each time:
  -- its user could make every resource server read the feed anew. A failover that lost the entry gets it back.
  if ARGV[2] == 'again' then redis.call('ZADD', KEYS[1], 'NX', text(now), ARGV[i])
  else redis.call('ZADD', KEYS[1], text(now), ARGV[i]) end
end
redis.call('PEXPIRE', KEYS[1], text(keep))
return 1
