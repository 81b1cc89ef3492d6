-- Blocks a user: no session is opened for as long as the mark exists. The caller ends the sessions that are open.
-- KEYS the mark that the number is blocked; in {sub}, where open.lua reads it
-- ARGV the time to live of the mark (ms)
-- Returns 1.
-- One script, because Redis refuses a plain SET while its memory is full. It allows DEL, and it does not refuse a later
-- command of a script that has begun with one: a block must work during an attack that fills Redis.

redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
