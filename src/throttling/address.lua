-- Counts one request of a client address, or refuses it: every window of every key is checked before any is counted,
-- so a refusal costs nothing.
-- KEYS one list of timestamps per scope of the address (IPv4: itself; IPv6: its /64 and its /48), all on one slot
-- ARGV the limits (see read_limits), then for each key the factor that its counts are multiplied by
-- Returns 0, or the milliseconds until the address may come again.
-- One script, because between a check and a count on two replicas the last place would be given twice.
local limits, keep, longest, at = read_limits(1)
local now = now_ms()
local wait = 0
for i, key in ipairs(KEYS) do
  local factor = tonumber(ARGV[at + i - 1])
  for _, limit in ipairs(limits) do
    wait = math.max(wait, window_wait(key, now, limit.count * factor, limit.window))
  end
end
if wait > 0 then return wait end
for i, key in ipairs(KEYS) do
  window_record(key, now, keep * tonumber(ARGV[at + i - 1]), longest)
end
return 0
