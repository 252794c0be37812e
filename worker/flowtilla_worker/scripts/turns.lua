-- Whose turn it is in a queue. Each namespace that has runs there has a number; the lowest is next, and what it is served
-- adds to it, the less the more it weighs.

-- Whether anybody may wait in a queue. RQ's own tools push, and let nobody arrive.
local function awaited(queue)
  return redis.call('TYPE', KEY.queue .. queue)['ok'] == 'list'
    or redis.call('EXISTS', KEY.turns .. queue, KEY.arrived .. queue) > 0
end

-- Who comes is behind one turn of each that is there, or it would be served each time it comes back.
local function enter(turns, namespace)
  if not redis.call('ZSCORE', turns, namespace) then
    local lowest = redis.call('ZRANGE', turns, 0, 0, 'WITHSCORES')[2]
    redis.call('ZADD', turns, (tonumber(lowest) or 0) + 1, namespace)
  end
end

-- Lets those take turns that have come.
local function let_arrive(queue)
  local turns, arrived = KEY.turns .. queue, KEY.arrived .. queue
  if redis.call('TYPE', turns)['ok'] ~= 'zset' then
    redis.call('DEL', turns) -- somebody put something else there; the next sweep finds who waits
  end
  for _, namespace in ipairs(redis.pcall('SMEMBERS', arrived)) do
    enter(turns, namespace)
  end
  redis.call('DEL', arrived)
  if redis.call('TYPE', KEY.queue .. queue)['ok'] == 'list' then
    enter(turns, 'default')
  end
end

-- Returns the namespace whose turn it is, when so many are passed over.
local function in_turn(queue, passed)
  return redis.call('ZRANGE', KEY.turns .. queue, passed, passed)[1]
end

-- Returns the only namespace there is, which then needs no turns.
local function only_one(queue)
  return redis.call('ZCARD', KEY.turns .. queue) == 1 and in_turn(queue, 0)
end

local function serve(queue, namespace, weight)
  redis.call('ZINCRBY', KEY.turns .. queue, 1 / weight, namespace)
end

-- Takes the turns of a namespace that has nothing left; RQ's tools then see its line no more.
local function leave(queue, namespace)
  redis.call('ZREM', KEY.turns .. queue, namespace)
  if namespace ~= 'default' then
    redis.pcall('SREM', KEY.queues, line_of(queue, namespace))
  end
end
