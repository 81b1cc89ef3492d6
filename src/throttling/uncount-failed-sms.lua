-- Takes an SMS that the carrier failed out of its number's limit, so that the person may ask for another.
-- KEYS the list of timestamps that it was counted in, the list of those that were forgiven; both in {admission}
-- ARGV its timestamp, the limits of the list, the limit of forgiving
-- Returns the milliseconds until the number may ask again, also when it was taken out before, or -1 when it stays counted.
-- One script, because of two replicas that hear of the failure one alone may take it out.
local limits, _, _, at = read_limits(2)
local forgiving, keep, longest = read_limits(at)
local now = now_ms()
-- A number that is switched off, or that an attacker holds, fails for ever: without an end it would have no limit.
if windows_wait(KEYS[2], now, forgiving) > 0 then return -1 end
if redis.call('LREM', KEYS[1], -1, ARGV[1]) > 0 then window_record(KEYS[2], now, keep, longest) end
return windows_wait(KEYS[1], now, limits)
