-- Enqueues a run unless its id is taken. Returns 1, or 0 when a job of this id exists, or 'queue' or 'namespace' when
-- as many as may wait do: in the queue, or of the namespace in it.
-- KEYS: job, scheduled registry, index of the namespace's runs
-- ARGV: id, queue, "front" | "back" | when to queue (seconds since the epoch), submitted (seconds), how many may wait in
--       the queue, of the namespace in it; '' for any number, then the job's fields and values
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local id, queue, place, namespace = ARGV[1], ARGV[2], ARGV[3], namespace_of(ARGV[1])

-- What somebody else put in the place of these counts none.
local function count(command, key)
  local found = redis.pcall(command, key)
  return type(found) == 'number' and found or 0
end

local function of_namespace(name)
  return count('LLEN', line_of(queue, name))
end

local function in_queue()
  local sum, counted = count('SCARD', KEY.held .. queue), {}
  local waiting, arrived = redis.pcall('ZRANGE', KEY.turns .. queue, 0, -1), redis.pcall('SMEMBERS', KEY.arrived .. queue)
  for _, names in ipairs({waiting, arrived, {'default'}}) do
    for _, name in ipairs(names) do
      sum, counted[name] = sum + (counted[name] and 0 or of_namespace(name)), true
    end
  end
  return sum
end

if ARGV[5] ~= '' and in_queue() >= tonumber(ARGV[5]) then
  return 'queue'
end
local held = KEY.held .. queue .. '@' .. namespace
if ARGV[6] ~= '' and of_namespace(namespace) + count('SCARD', held) >= tonumber(ARGV[6]) then
  return 'namespace'
end
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
redis.call('ZADD', KEYS[3], ARGV[4], id)
if tonumber(place) then
  redis.call('ZADD', KEYS[2], place, id)
else
  push(queue, id, place == 'front')
end
return 1
