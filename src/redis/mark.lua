-- Writes something, so that the connection that it came by has something for WAIT to wait for: one that has written
-- nothing would be told that all of it is at every replica.
-- KEYS mark; in the slot of what was written before it
-- ARGV how long it stays (ms)
-- Returns 1.
-- One script, because a plain SET is refused while Redis is full; one that has deleted first is not.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
