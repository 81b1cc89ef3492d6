-- Gives back the right to send a webhook that did not arrive: the next alert shall try again, and tell of these.
-- KEYS that one was sent lately, how many were held back since; both in {alerts}
-- ARGV how many alerts it spoke for, for how long to count (ms)
-- Returns 1.
-- One script, because a replica that dies in between would leave a count without an expiry, or a right that nobody has.
redis.call('DEL', KEYS[1])
redis.call('INCRBY', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
