-- Ends the tokens of a number's devices that were issued until now, but for one.
-- KEYS end of devices; in {pseudonym}
-- ARGV the device that is kept or '', when its token was issued (ms), how long tokens of devices may live (ms)
-- Returns 1.
-- One script, because the time must be the store's own, and the key must not stay without its time to live.

-- A thief's device that the owner ended meanwhile must not come back to life by being kept.
local kept = ARGV[1] ~= '' and device_lives(KEYS[1], ARGV[2], ARGV[1]) and ARGV[1] or ''
-- First what is never refused: a script that has written may go on writing while Redis is full, and people must be able
-- to log out then, too.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], text(now_ms()) .. ':' .. kept, 'PX', ARGV[3])
return 1
