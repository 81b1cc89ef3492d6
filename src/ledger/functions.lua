-- The ledger's part of a step that spends money. All of its keys begin with the ledger's own, on {admission}.

-- Ninety days, and two hundred thousand events: what is personal, and what is large, does not grow for ever.
local LEDGER_KEEP = 90 * 86400000
local LEDGER_MOST = 200000
-- Asia/Kolkata is five and a half hours ahead all year round.
local KOLKATA = 19800000

-- Appends an event, given as fields and values. Returns its id.
local function ledger_append(ledger, now, ...)
  local id = redis.call('XADD', ledger, 'MAXLEN', '~', LEDGER_MOST, '*', ...)
  redis.call('XTRIM', ledger, 'MINID', text(now - LEDGER_KEEP))
  redis.call('PEXPIRE', ledger, text(LEDGER_KEEP))
  return id
end

-- Adds to a total of the hour of Asia/Kolkata that `at` (ms) lies in; a day's hours are one hash.
local function usage_add(ledger, at, total, n)
  local hour = math.floor((at + KOLKATA) / 3600000)
  local day = math.floor(hour / 24)
  local key = ledger .. ':usage:' .. text(day)
  redis.call('HINCRBY', key, text(hour % 24) .. ':' .. total, text(n))
  redis.call('PEXPIREAT', key, text((day + 91) * 86400000 - KOLKATA))
end
