-- Moves runs off their queues and into a worker's hands: lease, attempt token, RQ's bookkeeping, in one step.
-- KEYS: leases, RQ's suspended switch, damaged, then the queues in order of priority
-- ARGV: how many at most, worker, nonce, lease in ms, now as RQ writes it, prefixes: job, wip registry, queue, run,
--       then the job's fields to return
-- Returns {suspended, {id, token, attempt, values of those fields, stages, values}, ...}; the last two only after a
-- first attempt.
local claimed = {redis.call('EXISTS', KEYS[2])}
if claimed[1] == 1 then
  return claimed
end
local wanted, worker, nonce, lease, stamp = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local JOB, WIP, QUEUE, RUN = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + lease

local function claimable(status, id)
  if status == 'started' then
    -- Pushed twice, unless nobody holds it.
    return not redis.call('ZSCORE', KEYS[1], id)
  end
  return status ~= 'finished' and status ~= 'failed' and status ~= 'canceled' and status ~= 'stopped'
end

local function claim(id, queue)
  local job = JOB .. id
  local kind = redis.call('TYPE', job)['ok']
  if kind == 'none' then
    return -- deleted while it waited
  end
  if kind ~= 'hash' or not string.match(id, '^[%w_%-]+$') then
    redis.call('LPUSH', KEYS[3], cjson.encode({at = stamp, queue = queue, id = id, found = kind}))
    redis.call('LTRIM', KEYS[3], 0, 999)
    return
  end
  if not claimable(redis.call('HGET', job, 'status'), id) then
    return
  end
  local attempt = redis.call('HINCRBY', job, 'attempt', 1)
  local token = attempt .. '-' .. nonce .. '-' .. #claimed
  redis.call('HSET', job, 'token', token, 'status', 'started', 'worker_name', worker, 'started_at', stamp,
    'last_heartbeat', stamp, 'origin', string.sub(queue, #QUEUE + 1))
  redis.call('ZADD', KEYS[1], deadline, id)
  -- Never expires: RQ's clean-up fails whatever expires there, and our own leases tell who is alive.
  redis.call('ZADD', WIP .. string.sub(queue, #QUEUE + 1), '+inf', id .. ':' .. token)
  local run = {id, token, attempt, redis.call('HMGET', job, unpack(ARGV, 10))}
  if attempt > 1 then
    -- An earlier end may have set these to expire.
    local stages, values = RUN .. id .. ':stages', RUN .. id .. ':values'
    for _, key in ipairs({job, stages, values}) do
      redis.call('PERSIST', key)
    end
    run[5] = redis.call('HGETALL', stages)
    run[6] = redis.call('HGETALL', values)
  end
  table.insert(claimed, run)
end

for i = 4, #KEYS do
  while #claimed <= wanted do
    local id = redis.pcall('LPOP', KEYS[i])
    -- Nothing there, or (a table) an error: somebody put a value of another kind where the queue should be.
    if not id or type(id) == 'table' then
      break
    end
    claim(id, KEYS[i])
  end
end
return claimed
