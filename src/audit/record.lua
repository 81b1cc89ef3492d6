-- Appends events to the stream of the audit, many in one step. Every replica sees a change of a signing key; the first one
-- that reports it is kept.
-- KEYS the stream, the mark that this batch was written; in {audit}, as every key that is made from the stream's
-- ARGV the number of events to keep, for how long (ms), the events as a JSON array: each an array of field, value, field, value ...
-- Returns the number of appended events, or 0 when the batch was written before.
-- One script, because a replica that dies between an event and its mark would write it twice, or never.
local stream, most, keep = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local oldest = text(now_ms() - keep)
-- The answer to an earlier try was lost.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end

-- Whether a change of a key is news. A replica that starts later finds keys published that sign already. The events of a replica that
-- did not reach Redis for a while arrive late: what they report is older than the change that the mark names, and no news.
local function is_news(event)
  local fields = {}
  for i = 1, #event, 2 do fields[event[i]] = event[i + 1] end
  local change = string.match(fields.audit, '^key%.(%a+)$')
  if not change then return true end
  local mark = stream .. ':key:' .. fields.kid .. ':' .. fields.thumbprint
  local before, at = string.match(redis.call('GET', mark) or '', '^(%a+) (%S+)$')
  redis.call('PEXPIRE', mark, text(keep))
  -- ISO 8601 in UTC sorts as text.
  if before and fields.time < at then return false end
  if before == change or (before == 'signing' and change == 'published') then return false end
  redis.call('SET', mark, change .. ' ' .. fields.time, 'PX', text(keep))
  return true
end

local appended = 0
for _, event in ipairs(cjson.decode(ARGV[3])) do
  if is_news(event) then
    redis.call('XADD', stream, 'MAXLEN', '~', most, '*', unpack(event))
    appended = appended + 1
  end
end
-- Last: of a step that broke off, rather something twice than nothing.
redis.call('SET', KEYS[2], '1', 'PX', 600000)
redis.call('XTRIM', stream, 'MINID', oldest)
redis.call('PEXPIRE', stream, text(keep))
return appended
