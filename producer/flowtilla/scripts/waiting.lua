-- Where runs wait. In each queue every namespace has a line of its own, so that none stands behind all of another's:
-- `default` has RQ's own list, where RQ's tools push too, and each other one a list beside it, `queue@namespace`. RQ's
-- tools take that for a queue of its own, and so its name is the origin of the jobs there until they are claimed.
-- Which namespaces have come since, a set of the queue says; a claim lets them take turns.

-- Whether somebody has put something else in the place of a key, as the reply of `redis.pcall` tells.
local function misplaced(reply)
  return type(reply) == 'table' and reply.err and string.find(reply.err, 'WRONGTYPE', 1, true)
end

local function line_of(queue, namespace)
  return KEY.queue .. queue .. (namespace == 'default' and '' or '@' .. namespace)
end

local function namespace_of(id)
  return string.match(id, '^(.-)%-%-') or 'default'
end

local function push(queue, id, front)
  local namespace = namespace_of(id)
  local line = line_of(queue, namespace)
  if namespace ~= 'default' then
    redis.call('HSET', KEY.job .. id, 'origin', string.sub(line, #KEY.queue + 1))
  end
  if redis.call(front and 'LPUSH' or 'RPUSH', line, id) == 1 then
    -- A longer line takes turns already, and its workers are awake or have no free slot.
    redis.call('SADD', KEY.queues, line)
    redis.call('SADD', KEY.arrived .. queue, namespace)
    redis.call('PUBLISH', KEY.wake .. queue, '')
  end
end
