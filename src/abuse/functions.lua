-- The abuse control's part of scripts that count: what was sent, what came back, and how far each scope (a number series, an
-- address range, the whole service) is trusted now. judge.lua raises and lowers the levels. All keys begin with the abuse
-- control's own, on {admission}. Levels: 0 none, 1 observe, 2 challenge, 3 deny. Modes: 0 off, 1 observe, 3 enforce.

-- A level holds for this long after the abuse control last found it justified. Then it falls by one at a time.
local ABUSE_HOLD = 900000
-- The longest that anything about a scope is needed: the window of a day, and the buckets that are not judged yet.
local ABUSE_KEEP = 98 * 900000
-- A scope is judged at most once in this time.
local ABUSE_JUDGED = 5000
-- The windows: minutes of fifteen, quarter hours of a day. SMS of the youngest buckets are not judged yet, because their
-- codes are still on their way. Below the floors (SMS sent, numbers with a wrong code) nothing is judged. The window of a
-- day reacts too slowly for a denial.
local ABUSE_WINDOWS = {
  { name = 'm', width = 60000, buckets = 15, mature = 2, floor = { conversion = 20, wrong_codes = 50 }, highest = 3 },
  { name = 'q', width = 900000, buckets = 96, mature = 1, floor = { conversion = 100, wrong_codes = 200 }, highest = 2 },
}

local function abuse_key(abuse, scope) return abuse .. ':scope:' .. scope end
local function abuse_level_key(abuse, scope) return abuse .. ':level:' .. scope end

-- Counts one, or `n`, at the time `at`. `what`: s sent, v verified (at the time of its sending), w a number's wrong code,
-- r a right code, c challenged, p passed by a solution. `window`: m or q; both without it.
local function abuse_count(abuse, scope, what, at, window, n)
  local key = abuse_key(abuse, scope)
  for _, each in ipairs(ABUSE_WINDOWS) do
    if not window or window == each.name then
      local count = redis.call('HINCRBY', key, each.name .. text(math.floor(at / each.width)) .. ':' .. what, n or 1)
      -- The first field of a new key sets its time to live, and so does every new bucket.
      local fresh = count <= 1
      if fresh then redis.call('PEXPIRE', key, ABUSE_KEEP) end
      -- Every floor is more than one in each bucket of its window. A scope without a bucket of two is never bad: it has no
      -- level, and is judged only so that its old buckets are deleted.
      if count == 2 or fresh and redis.call('HLEN', key) > 200 then
        local level = abuse_level_key(abuse, scope)
        if redis.call('PEXPIRE', level, ABUSE_KEEP) == 0 then
          redis.call('SET', level, '0 0 0 0 none', 'PX', ABUSE_KEEP)
        end
      end
    end
  end
end

-- Clients that got a challenge and have not solved one since: a sorted set of keyed hashes by the time of the challenge. What
-- one client leaves unsolved costs it nothing, so only challenges to more than a few clients hold a level. The set is small,
-- because strangers fill it.
local ABUSE_FEW_CLIENTS, ABUSE_MOST_CLIENTS = 10, 64
-- A phone solves a challenge within seconds.
local ABUSE_SOLVED = 60000
local function abuse_unsolved_key(abuse, scope) return abuse .. ':unsolved:' .. scope end
-- `clients`: the client within an address range (an IPv4 address, an IPv6 /64), and elsewhere (an IPv6 /48, because one
-- attacker may hold all of it).
local function abuse_client_in(scope, clients) return clients[string.sub(scope, 1, 8) == 'network:' and 1 or 2] end

local function abuse_challenged(abuse, scope, clients, now)
  abuse_count(abuse, scope, 'c', now)
  local key = abuse_unsolved_key(abuse, scope)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now - ABUSE_HOLD))
  if redis.call('ZCARD', key) < ABUSE_MOST_CLIENTS then
    redis.call('ZADD', key, 'NX', text(now), abuse_client_in(scope, clients))
    redis.call('PEXPIRE', key, text(ABUSE_HOLD))
  end
end
local function abuse_passed(abuse, scope, clients, now)
  abuse_count(abuse, scope, 'p', now)
  redis.call('ZREM', abuse_unsolved_key(abuse, scope), abuse_client_in(scope, clients))
end
-- Whether more than a few clients leave their challenges unsolved.
local function abuse_left_unsolved(abuse, scope, now)
  local key = abuse_unsolved_key(abuse, scope)
  local clients = redis.call('ZCOUNT', key, text(now - ABUSE_HOLD), text(now - ABUSE_SOLVED))
  return clients > ABUSE_FEW_CLIENTS
end

-- Reads a level as judge.lua stores it: the level that holds now (one less with every interval that has passed since it was
-- last justified), and the stored level, the end of its hold, the time mark of the last judgement, the time of the last
-- rise, and the signal that raised it.
local function abuse_held(stored, now)
  local level, held_until, judged, risen, signal = string.match(stored or '', '^(%d) (%d+) (%d+) (%d+) (%S+)$')
  level, held_until = tonumber(level or 0), tonumber(held_until or 0)
  local held = level
  if level > 0 and now >= held_until then
    held = math.max(0, level - 1 - math.floor((now - held_until) / ABUSE_HOLD))
  end
  return held, level, held_until, tonumber(judged or 0), tonumber(risen or 0), signal
end

-- The time mark of a judgement: a scope with another one is judged again.
local function abuse_mark(now) return math.floor(now / ABUSE_JUDGED) end

-- The highest level that holds for any of the scopes, the end of its hold, and the scopes at challenge or above; or nil when
-- the time mark of one of them has expired, and judge.lua must run first. `modes`: the highest level of each signal. A level
-- never outlives the mode that allowed it, because a lower mode takes effect at once.
local function abuse_levels(abuse, scopes, now, modes)
  local keys, highest, until_then, raised = {}, 0, 0, {}
  for i, scope in ipairs(scopes) do keys[i] = abuse_level_key(abuse, scope) end
  if #keys == 0 then return highest, until_then, raised end
  local levels = redis.call('MGET', unpack(keys))
  for i, scope in ipairs(scopes) do
    local level, _, held_until, judged, _, signal = abuse_held(levels[i], now)
    if levels[i] and judged ~= abuse_mark(now) then return nil end
    level = math.min(level, modes[signal] or level)
    if level >= 2 then raised[#raised + 1] = scope end
    if level > highest then highest, until_then = level, held_until end
  end
  return highest, until_then, raised
end

-- Sums of a scope's buckets for one window: all of them, and those that began after the level rose. Old buckets are deleted
-- when a key is given.
local function abuse_sums(key, fields, window, now, risen)
  local all = { s = 0, v = 0, w = 0, r = 0, c = 0, p = 0 }
  local since = { s = 0, v = 0, w = 0, r = 0, c = 0, p = 0 }
  local current = math.floor(now / window.width)
  for field, count in pairs(fields) do
    local name, bucket, what = string.match(field, '^(%a)(%d+):(%a)$')
    if name == window.name then
      local age = current - tonumber(bucket)
      local mature = (what == 's' or what == 'v') and window.mature or 0
      if age > window.buckets + window.mature then
        if key then redis.call('HDEL', key, field) end
      elseif age >= mature and age < window.buckets + mature then
        all[what] = all[what] + tonumber(count)
        if tonumber(bucket) * window.width >= risen then since[what] = since[what] + tonumber(count) end
      end
    end
  end
  return all, since
end
