-- Publishes ids of sessions that are about to end, for resource servers that verify tokens by themselves.
-- KEYS {revocations}: sorted set, id by time
-- ARGV how long to keep them (ms), ids ...
-- Returns 1.
-- One script, because ids that came without their times or their expiry would never be read, or for ever.
local now, keep = now_ms(), tonumber(ARGV[1])
-- First what is never refused: a script that has written may go on writing while Redis is full, and people must be able
-- to log out then, too.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(now - keep))
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], text(now), ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], text(keep))
return 1
