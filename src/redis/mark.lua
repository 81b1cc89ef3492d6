-- Writes a mark, so that WAIT on the same connection has a write to wait for: for a connection without a write, Redis answers
-- at once that every replica has everything.
-- KEYS the mark; on the slot of the keys that were written before it
-- ARGV the time to live of the mark (ms)
-- Returns 1.
-- One script, because Redis refuses a plain SET while its memory is full. It allows DEL, and it does not refuse a later
-- command of a script that has begun with one.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
