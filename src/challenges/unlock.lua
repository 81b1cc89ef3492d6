-- Unlocks a number: its failures until now count no longer in windows of a day or less. The failures of 30 days and those
-- without a success between them still count: an attacker that has operators deceived gets a few more guesses, and no more.
-- KEYS the unlocks of the number (list); in {pseudonym}
-- ARGV how many unlocks are possible, and in how many ms
-- Returns 0, or the milliseconds until the number may be unlocked again.
-- One script, because two operators at once must not unlock a number four times.
local now, count, window = now_ms(), tonumber(ARGV[1]), tonumber(ARGV[2])
local wait = window_wait(KEYS[1], now, count, window)
if wait == 0 then window_record(KEYS[1], now, count, window) end
return wait
