-- Tries every command of the service's scripts, and tells which of them Redis refuses to this user.
-- KEYS a key of the service, of no other use; it is deleted at the end and lives for a second at most
-- ARGV nothing
-- Returns the names of the refused commands; empty when the user has all rights.
-- One script, because only a script shows that the user may run scripts, on the service's keys, with these commands.
local key, refused = KEYS[1], {}

-- Whether Redis ran the command. Redis checks rights before it looks at the type of a key.
local function try(...)
  local answer = redis.pcall(...)
  local fault = type(answer) == 'table' and answer.err
  if not fault then return true end
  for _, words in ipairs({ 'NOPERM', 'ACL failure', "can't run this command", 'nknown Redis command', 'allowed from script' }) do
    if string.find(fault, words, 1, true) then
      table.insert(refused, (...))
      break
    end
  end
  return false
end

-- The key is a text with an expiry throughout, so that the commands of other types are tried and write nothing. Where the
-- text cannot be written (a full or read-only Redis), nothing else is tried, or it would leave a key that never expires.
if not try('SET', key, '1', 'PX', '1000') then return refused end
try('TIME')
try('GET', key)
try('MGET', key)
try('EXISTS', key)
try('PTTL', key)
try('PEXPIRE', key, '1000')
try('PEXPIREAT', key, text(now_ms() + 1000))
try('INCRBY', key, '1')
try('GETRANGE', key, '0', '0')
try('GETBIT', key, '0')
try('SETBIT', key, '0', '0')
try('SETRANGE', key, '0', '1')
try('PFADD', key, '1')
try('PFCOUNT', key)
try('HSET', key, 'field', '1')
try('HSETNX', key, 'field', '1')
try('HGET', key, 'field')
try('HMGET', key, 'field')
try('HGETALL', key)
try('HEXISTS', key, 'field')
try('HLEN', key)
try('HINCRBY', key, 'field', '1')
try('HDEL', key, 'field')
try('RPUSH', key, '1')
try('LINDEX', key, '0')
try('LLEN', key)
try('LPOS', key, '1')
try('LRANGE', key, '0', '0')
try('LREM', key, '0', '1')
try('LTRIM', key, '0', '0')
try('ZADD', key, '1', 'member')
try('ZCARD', key)
try('ZCOUNT', key, '0', '0')
try('ZRANGE', key, '0', '0')
try('ZRANGEBYSCORE', key, '0', '0')
try('ZREVRANGE', key, '0', '0')
try('ZREM', key, 'member')
try('ZREMRANGEBYSCORE', key, '0', '0')
try('XADD', key, '*', 'field', '1')
try('XREVRANGE', key, '+', '-', 'COUNT', '1')
try('XTRIM', key, 'MAXLEN', '0')
try('DEL', key)
return refused
