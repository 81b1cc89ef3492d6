-- Gives back the right to send a webhook that did not arrive: the next alert tries again, and counts these alerts, too.
-- KEYS the mark that a webhook was sent lately, the number of alerts that were held back since; both in {alerts}
-- ARGV the number of alerts that the webhook stood for, the time to live of the count (ms)
-- Returns 1.
-- One script, because a replica that dies between the commands would leave a count without an expiry, or a mark that no
-- replica removes.
redis.call('DEL', KEYS[1])
redis.call('INCRBY', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
