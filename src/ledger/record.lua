-- Records the outcomes of SMS and of codes, and counts them for the abuse control: many events in one step.
-- KEYS the ledger, the abuse control, the mark that this batch was written, the mark that a number logged in not
--      long ago; all in {admission}
-- ARGV the events as a JSON array. Each has `what`:
--      verified: sms, at, scopes (of the send), tried (scopes of the verification)
--      wrong: tried, quiet (ms since the number's last wrong code, or -1)
--      handed over: sms, provider
--      delivery: sms, at, delivery, cost (ten-thousandths of a rupee above the charged price)
--      And for how long a login makes a number a returning one (ms)
-- Returns the number of events, or 0 when the batch was written before.
-- One script, because a replica that dies between an event and its totals would leave a ledger that does not add up.
local ledger, abuse = KEYS[1], KEYS[2]
local now = now_ms()
-- The answer to an earlier try was lost.
if not redis.call('SET', KEYS[3], '1', 'NX', 'PX', 600000) then return 0 end
local events = cjson.decode(ARGV[1])
for _, event in ipairs(events) do
  if event.what == 'verified' then
    ledger_append(ledger, now, 'event', 'verified', 'sms', event.sms)
    usage_add(ledger, event.at, 'verified', 1)
    redis.call('SET', KEYS[4], '1', 'PX', ARGV[2])
    for _, scope in ipairs(event.scopes) do abuse_count(abuse, scope, 'v', event.at) end
    for _, scope in ipairs(event.tried) do abuse_count(abuse, scope, 'r', now) end
  elseif event.what == 'wrong' then
    -- A number counts once in a quarter of an hour and once in a day, however often it is tried: many numbers are theft, one
    -- is a person's bad day.
    local last = event.quiet < 0 and -1 or now - event.quiet
    local function first_of(width) return last < 0 or math.floor(last / width) ~= math.floor(now / width) end
    for _, scope in ipairs(event.tried) do
      if first_of(900000) then abuse_count(abuse, scope, 'w', now, 'm') end
      if first_of(86400000) then abuse_count(abuse, scope, 'w', now, 'q') end
    end
  elseif event.what == 'handed over' then
    ledger_append(ledger, now, 'event', 'handed-over', 'sms', event.sms, 'provider', event.provider)
  elseif event.what == 'delivery' then
    ledger_append(ledger, now, 'event', 'delivery', 'sms', event.sms, 'delivery', event.delivery, 'cost', text(event.cost))
    usage_add(ledger, event.at, event.delivery, 1)
    if event.cost ~= 0 then usage_add(ledger, event.at, 'cost', event.cost) end
  end
end
return #events
