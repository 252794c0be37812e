-- Moves runs off their queues and into a worker's hands: lease, attempt token, RQ's bookkeeping, in one step.
-- KEYS: leases, RQ's suspended switch, damaged, the worker's last claim, what the worker was told, then the queues in
--       order of priority, then the switch of each that suspends it
-- ARGV: how many at most, worker, nonce, lease in ms, now as RQ writes it, 1 if the worker has nothing in hand,
--       strikes that make a suspect: lost workers, lost clusters; prefixes: job, wip registry, queue, run, results,
--       failed registry; weights of namespaces as JSON; how many bytes the job's fields may have; then those to return
-- Returns {'suspend', 'drain' or nothing, {id, token, attempt, values of those fields, stages, values, ms since the run
-- first began}, ...}; the last three only after a first attempt.
local QUEUES = (#KEYS - 5) / 2
local switches = redis.call('MGET', KEYS[2], KEYS[5], unpack(KEYS, 6 + QUEUES))
local told = switches[2] == 'drain' and 'drain' or (switches[1] or switches[2]) and 'suspend' or ''
local claimed = {told}
local wanted, worker, nonce, lease, stamp = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local idle, STRIKES, CLUSTER_STRIKES = ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8])
local JOB, WIP, QUEUE, RUN, RESULTS, FAILED = ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[14]
local WEIGHTS, MOST, FIELDS = cjson.decode(ARGV[15]), tonumber(ARGV[16]), 17
-- How many bytes earlier attempts may have left.
local MOST_LEFT = 1024 ^ 3
-- How many runs of a line a claim leaves where they are, because they are for an idle worker.
local ASIDE = 16
-- Seconds that a suspect waits for a worker to itself, that a claim may be asked for again, that a run is kept which is
-- refused, and that an order is kept once its worker does not ask any more.
local PATIENCE, AGAIN, KEEP, ORDERED = 5, 60, 7 * 86400, 86400
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline = now + lease

local function name(queue)
  return string.sub(queue, #QUEUE + 1)
end

-- Who can write to Redis may have put anything there; a worker's memory must not end on it.
local function bounded(most, ...)
  local size = 0
  for _, fields in ipairs({...}) do
    for _, field in ipairs(fields) do
      size = size + (field and #field or 0)
    end
  end
  return size <= most or error({err = 'its fields have ' .. size .. ' bytes'}, 0)
end

local function hand_over(id, token, attempt)
  local run = {id, token, attempt, redis.call('HMGET', JOB .. id, unpack(ARGV, FIELDS))}
  bounded(MOST, run[4])
  if attempt > 1 then
    local stages, values = RUN .. id .. ':stages', RUN .. id .. ':values'
    -- An earlier end may have set these to expire.
    for _, key in ipairs({JOB .. id, stages, values, RUN .. id .. ':log'}) do
      redis.call('PERSIST', key)
    end
    run[5], run[6] = redis.call('HGETALL', stages), redis.call('HGETALL', values)
    bounded(MOST_LEFT, run[5], run[6])
    run[7] = math.max(0, math.min(now - (tonumber(redis.call('HGET', JOB .. id, 'first_began')) or now), 2 ^ 52))
  end
  table.insert(claimed, run)
end

local function note_damage(id, queue, found)
  redis.pcall('LPUSH', KEYS[3], cjson.encode({at = stamp, queue = queue, id = id, found = found}))
  redis.pcall('LTRIM', KEYS[3], 0, 999)
  redis.pcall('EXPIRE', KEYS[3], KEEP)
end

-- Ends a run that cannot be claimed because a key of its own is damaged. Each step by itself: any key may be bad.
local function refuse(id, queue, why)
  note_damage(id, queue, why)
  local message = 'a key of the run in Redis is damaged (' .. why .. '): submit it again'
  local over = time[1] + KEEP
  -- What cannot be read goes, so that whoever asks for the run hears how it ended.
  for _, key in ipairs({RUN .. id .. ':stages', RUN .. id .. ':values'}) do
    if redis.call('TYPE', key)['ok'] ~= 'hash' then
      redis.call('DEL', key)
    end
  end
  redis.pcall('HDEL', JOB .. id, 'token', 'attempt')
  redis.pcall('HSET', JOB .. id, 'status', 'failed', 'ended_at', stamp, 'failure',
    cjson.encode({error = 'flowtilla.errors.MessageError', message = message}))
  redis.pcall('ZREM', KEYS[1], id)
  pcall(free, id)
  redis.pcall('ZADD', FAILED .. queue, over, id)
  redis.pcall('XADD', RESULTS .. id, 'MAXLEN', 10, '*', 'type', '2', 'worker_name', worker)
  for _, key in ipairs({JOB .. id, RESULTS .. id, RUN .. id .. ':stages', RUN .. id .. ':values', RUN .. id .. ':log'}) do
    redis.pcall('EXPIRE', key, KEEP)
  end
end

local function claimable(status, id)
  if status == 'started' then
    -- Pushed twice, unless nobody holds it.
    return not redis.call('ZSCORE', KEYS[1], id)
  end
  return status ~= 'finished' and status ~= 'failed' and status ~= 'canceled' and status ~= 'stopped'
end

-- Whether a run may be what takes down workers, and has not waited long enough for one to itself.
local function suspect(job, strikes, cluster_strikes)
  if (tonumber(strikes) or 0) < STRIKES and (tonumber(cluster_strikes) or 0) < CLUSTER_STRIKES then
    return false
  end
  redis.call('HSETNX', job, 'suspect_since', time[1])
  return time[1] - (tonumber(redis.call('HGET', job, 'suspect_since')) or 0) < PATIENCE
end

-- Forgets how a run ended that is queued again: RQ's requeue, unlike our own, does not.
local function afresh(job)
  redis.call('HDEL', job, 'cancel', 'failure', 'quarantined', 'taken', 'lost_worker', 'losses', 'crashes', 'strikes',
    'first_began', 'cluster_losses', 'cluster_strikes', 'cluster_lost_by', 'cluster_lost_at')
end

-- Returns 'aside' when the run is for an idle worker, 'alone' when it was claimed and nothing may be beside it, 'claimed',
-- or nothing when it is not to be claimed now.
local function claim(id, queue)
  local job = JOB .. id
  local said = redis.pcall('HMGET', job, 'status', 'failure', 'limits', 'strikes', 'cluster_strikes')
  if said.err and not misplaced(said) then
    error(said, 0)
  end
  local kind = said[1] and 'hash' or redis.call('TYPE', job)['ok']
  if kind == 'none' then
    return -- deleted while it waited
  end
  if kind ~= 'hash' or not string.match(id, '^[%w_%-]+$') then
    return note_damage(id, queue, kind)
  end
  if not claimable(said[1], id) then
    return
  end
  if said[2] then
    afresh(job)
    said[4], said[5] = false, false
  end
  local alone = suspect(job, said[4], said[5])
  if alone and not (idle and #claimed == 1) then
    return 'aside'
  end
  if not admit(id, queue, limits_in(said[3])) then
    return
  end
  local attempt = redis.call('HINCRBY', job, 'attempt', 1)
  local token = attempt .. '-' .. nonce .. '-' .. #claimed
  redis.call('ZADD', KEYS[1], deadline, id)
  redis.call('HSET', job, 'token', token, 'status', 'started', 'worker_name', worker, 'started_at', stamp,
    'last_heartbeat', stamp, 'origin', queue)
  redis.call('HSETNX', job, 'first_began', now)
  if said[4] or said[5] then
    redis.call('HDEL', job, 'suspect_since')
  end
  -- Never expires: RQ's clean-up fails whatever expires there, and our own leases tell who is alive.
  redis.pcall('ZADD', WIP .. queue, '+inf', id .. ':' .. token)
  hand_over(id, token, attempt)
  return alone and 'alone' or 'claimed'
end

-- The answer to the same claim may have been lost on its way.
local last = redis.pcall('GET', KEYS[4])
for id in string.gmatch(type(last) == 'string' and last or '', '[^ ]+') do
  local token = redis.pcall('HGET', JOB .. id, 'token')
  local attempt, own = string.match(type(token) == 'string' and token or '', '^(%d+)%-(%w+)%-')
  if own == nonce then
    pcall(hand_over, id, token, tonumber(attempt))
  end
end
if switches[2] then
  redis.call('EXPIRE', KEYS[5], ORDERED)
end
if #claimed > 1 or told ~= '' or wanted == 0 then
  return claimed
end

-- What is wrong for all must not fail one run after another.
local leases = redis.call('TYPE', KEYS[1])['ok']
if leases ~= 'zset' and leases ~= 'none' then
  return redis.error_reply('ERR ' .. KEYS[1] .. ' is damaged: it is a ' .. leases .. '; delete it')
end

-- Takes what is first in a line and claims it; returns what became of it, and its id.
local function claim_next(line, queue)
  local id = redis.pcall('LPOP', line)
  if type(id) ~= 'string' then
    return (not id or misplaced(id)) and 'empty' or error(id, 0)
  end
  local done, what = pcall(claim, id, queue)
  if done then
    return what, id
  end
  local why = type(what) == 'table' and what.err or tostring(what)
  if string.find(why, 'ACL failure', 1, true) then
    -- Nor must what the worker's user may not do.
    redis.call('LPUSH', line, id)
    redis.pcall('ZREM', KEYS[1], id)
    error(what, 0)
  end
  refuse(id, queue, why)
end

-- Claims from the lines of a queue, each in its turn.
local function claim_from(queue)
  if not awaited(queue) then
    return
  end
  if #claimed == 1 then
    -- Before anything else is written: refused when memory is full, and then nothing has been taken.
    redis.call('SET', KEYS[4], '', 'EX', AGAIN)
  end
  let_arrive(queue)
  local asides, passed, only = {}, 0, only_one(queue)
  while #claimed <= wanted do
    local namespace = passed == 0 and only or in_turn(queue, passed)
    if not namespace then
      break
    end
    local line, aside = line_of(queue, namespace), asides[namespace] or {}
    asides[namespace] = aside
    local what, id = 'empty', nil
    if #aside < ASIDE then
      what, id = claim_next(line, queue)
    end
    if what == 'aside' then
      table.insert(aside, id)
    elseif what == 'empty' and #aside > 0 then
      passed = passed + 1
    elseif what == 'empty' then
      only = nil
      leave(queue, namespace)
    elseif what then
      if not only then
        serve(queue, namespace, WEIGHTS[namespace] or WEIGHTS['*'] or 1)
      end
      wanted = what == 'alone' and 0 or wanted
    end
  end
  for namespace, aside in pairs(asides) do
    for i = #aside, 1, -1 do
      redis.call('LPUSH', line_of(queue, namespace), aside[i])
    end
  end
end

for i = 1, QUEUES do
  if not switches[2 + i] then
    claim_from(name(KEYS[5 + i]))
  end
end
if #claimed > 1 then
  local ids = {}
  for i = 2, #claimed do
    ids[i - 1] = claimed[i][1]
  end
  redis.call('SET', KEYS[4], table.concat(ids, ' '), 'EX', AGAIN)
end
return claimed
