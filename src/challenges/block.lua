-- Blocks a number or lets it in again. Codes that are under way are void, also when they arrive after it was let in
-- again, and tokens of devices end.
-- KEYS blocked, codes, end of devices; all in {pseudonym}
-- ARGV how long (ms), 0 to unblock; how long tokens of devices may live (ms), a code's whole life (ms)
-- Returns 1, or 0 when it was not blocked.
-- One script, because a send between two steps would be answered by one and not by the other.
if ARGV[1] == '0' then
  if redis.call('GET', KEYS[1]) ~= 'blocked' then return 0 end
  -- The time remains: codes and sessions from before it are void for as long as they could live.
  redis.call('SET', KEYS[1], text(now_ms()), 'PX', ARGV[3])
  return 1
end
-- First what is never refused: a script that has written may go on writing while Redis is full.
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[1], 'blocked', 'PX', ARGV[1])
redis.call('SET', KEYS[3], text(now_ms()) .. ':', 'PX', ARGV[2])
return 1
