-- Of the runs that share a key, at most so many are in workers' hands at once. The keys are those of RQ's rate limits:
-- `allowed` are the runs that have a place, `rate_limited` those that wait for one, by when they began to. A run takes
-- its places, of all its keys at once, when it is claimed, and has them until it ends, whoever works on it.
local MOVES = 100

-- Returns {{key, how many}, ...} of what a job's field says. What somebody else wrote there limits nothing.
local function limits_in(text)
  local found = {}
  if not text then
    return found
  end
  local done, limits = pcall(cjson.decode, text)
  for _, limit in ipairs(done and type(limits) == 'table' and limits or {}) do
    if type(limit) == 'table' and type(limit[1]) == 'string' and type(limit[2]) == 'number' and #found < 16 then
      table.insert(found, limit)
    end
  end
  return found
end

local function limits_of(id)
  return limits_in(redis.call('HGET', KEY.job .. id, 'limits'))
end

local function set_of(key, kind)
  local set = KEY.limit .. key .. ':' .. kind
  local found = redis.call('TYPE', set)['ok']
  if found ~= 'zset' and found ~= 'none' then
    redis.call('DEL', set) -- somebody put something else there
  end
  return set
end

-- Lets a run wait for a place, since the moment, in microseconds, that it began to. In a script time stands still.
local held = 0
local function hold(id, queue, key, since)
  if not since then
    local time = redis.call('TIME')
    since, held = time[1] * 1000000 + time[2] + held, held + 1
  end
  redis.call('ZADD', set_of(key, 'rate_limited'), since, id)
  redis.call('SADD', KEY.limited, key)
  redis.call('HSET', KEY.job .. id, 'status', 'rate_limited', 'waits_for', key, 'origin', queue)
  -- Only counted there; what somebody else put in their place must stop nobody.
  redis.pcall('SADD', KEY.held .. queue, id)
  redis.pcall('SADD', KEY.held .. queue .. '@' .. namespace_of(id), id)
end

-- Forgets that a run waits for a place.
local function unhold(id, queue)
  redis.call('HDEL', KEY.job .. id, 'waits_for')
  redis.pcall('SREM', KEY.held .. queue, id)
  redis.pcall('SREM', KEY.held .. queue .. '@' .. namespace_of(id), id)
end

-- Gives a run a place of each of its keys, or of none and lets it wait. Returns whether it has them.
local function admit(id, queue, limits, since)
  for _, limit in ipairs(limits) do
    local allowed = set_of(limit[1], 'allowed')
    if not redis.call('ZSCORE', allowed, id) and redis.call('ZCARD', allowed) >= limit[2] then
      hold(id, queue, limit[1], since)
      for _, other in ipairs(limits) do
        -- RQ's own maintenance may have let it in there; two that wait for each other's place would wait for ever.
        redis.call('ZREM', set_of(other[1], 'allowed'), id)
      end
      return false
    end
  end
  for _, limit in ipairs(limits) do
    redis.call('ZADD', set_of(limit[1], 'allowed'), redis.call('TIME')[1], id)
    redis.call('SADD', KEY.limited, limit[1])
    redis.call('HSET', KEY.limit .. limit[1], 'concurrency', limit[2])
  end
  return true
end

-- Lets the run that waits longest for a key have what place there is. Returns whether another may be tried.
local function let_in(key)
  local waiting = set_of(key, 'rate_limited')
  local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
  local id = first[1]
  if not id then
    if redis.call('ZCARD', set_of(key, 'allowed')) == 0 then
      redis.call('DEL', KEY.limit .. key)
      redis.call('SREM', KEY.limited, key)
    end
    return false
  end
  local job = redis.pcall('HMGET', KEY.job .. id, 'status', 'origin')
  if job[1] ~= 'rate_limited' or not job[2] then
    redis.call('ZREM', waiting, id)
    return true
  end
  local limits = limits_of(id)
  for _, limit in ipairs(limits) do
    if limit[1] == key and redis.call('ZCARD', set_of(key, 'allowed')) >= limit[2] then
      return false
    end
  end
  redis.call('ZREM', waiting, id)
  unhold(id, job[2])
  if admit(id, job[2], limits, first[2]) then
    redis.call('HSET', KEY.job .. id, 'status', 'queued')
    push(job[2], id, true)
  end
  return true
end

-- Lets runs in as long as there are places; what is left then, the next sweep does.
local function fill(key)
  for _ = 1, MOVES do
    if not let_in(key) then
      return
    end
  end
end

-- Takes back the places of a run that has ended, or that waited for one.
local function free(id)
  for _, limit in ipairs(limits_of(id)) do
    local waited = redis.call('ZREM', set_of(limit[1], 'rate_limited'), id)
    if waited == 1 then
      unhold(id, redis.call('HGET', KEY.job .. id, 'origin') or '')
    end
    if redis.call('ZREM', set_of(limit[1], 'allowed'), id) + waited > 0 then
      fill(limit[1])
    end
  end
end
