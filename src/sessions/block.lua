-- Lets no session of a user be opened.
-- KEYS that the number is blocked; in {sub}
-- ARGV how long (ms)
-- Returns 1.
-- One script, because a plain SET is refused while Redis is full; one that has deleted first is not.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
