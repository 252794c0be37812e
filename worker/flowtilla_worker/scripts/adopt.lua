-- Sets right what the members of a registry or an index say of runs; what a lost, damaged or deleted key leaves behind
-- would stay for ever. Returns {ids of started runs that had no lease and now have one}, and the first error, if any.
-- KEYS: leases, ended, where the members come from
-- ARGV: lease in ms, seconds to keep a run that RQ cancelled, the namespace whose index the members come from, or '',
--       prefixes: job, run, results, canceled registry; then the members: ids of runs, in the registry of started ones
--       with `:` and the attempt's token
-- First a write that needs no memory: those after it are then not refused when memory is full.
redis.pcall('ZREM', KEYS[1], '')
local LEASE, KEEP, NAMESPACE = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local JOB, RUN, RESULTS, CANCELED = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
-- Seconds until whoever works on a run that was deleted has noticed, and stores nothing more.
local NOTICED = 60
local time = redis.call('TIME')
local now = tonumber(time[1])
local deadline = now * 1000 + math.floor(time[2] / 1000) + LEASE

local function keys_of(id)
  return {RUN .. id .. ':stages', RUN .. id .. ':values', RUN .. id .. ':log'}
end

-- Its files go with the keys, at the next sweep after that.
local function forget(id, member)
  redis.call('ZREM', KEYS[3], member)
  if NAMESPACE ~= '' then
    redis.call('UNLINK', unpack(keys_of(id)))
    local due = redis.call('ZSCORE', KEYS[2], NAMESPACE .. '/' .. id)
    if not due or tonumber(due) > now + NOTICED then
      redis.call('ZADD', KEYS[2], now + NOTICED, NAMESPACE .. '/' .. id)
    end
  end
end

-- RQ's own cancel says it in the job's status, and in the registry of the line where it waited.
local function cancel(id, namespace, origin)
  if redis.call('ZSCORE', KEYS[1], id) then
    redis.call('HSET', JOB .. id, 'cancel', '1') -- who has it in hand hears of it with the next heartbeat
    return
  end
  free(id)
  for _, key in ipairs({JOB .. id, RESULTS .. id, unpack(keys_of(id))}) do
    redis.call('EXPIRE', key, KEEP)
  end
  local queue = string.match(origin, '^[^@]*')
  if queue ~= origin then
    redis.call('ZREM', CANCELED .. origin, id)
    redis.call('HSET', JOB .. id, 'origin', queue)
  end
  redis.call('ZADD', CANCELED .. queue, now + KEEP, id)
  redis.call('ZADD', KEYS[2], now + KEEP, namespace .. '/' .. id)
end

-- RQ's requeue lets the time run on that a former end left the run.
local function stay(id)
  if redis.call('PERSIST', JOB .. id) == 1 then
    for _, key in ipairs(keys_of(id)) do
      redis.call('PERSIST', key)
    end
  end
end

-- Lets a run wait again for a place, or for a worker, where the key is lost that said so.
local function wait(id, queue)
  local limits = limits_of(id)
  local key = redis.call('HGET', JOB .. id, 'waits_for') or limits[1] and limits[1][1]
  if not key then
    redis.call('HSET', JOB .. id, 'status', 'queued')
    push(queue, id, true)
  elseif not redis.call('ZSCORE', set_of(key, 'rate_limited'), id) then
    hold(id, queue, key)
  end
end

local adopted = {}
-- The reaper takes it when the lease runs out, unless somebody has it in hand and renews.
local function adopt(id)
  redis.call('HSETNX', JOB .. id, 'token', 'nobody')
  redis.call('ZADD', KEYS[1], deadline, id)
  table.insert(adopted, id)
end

-- Whether an entry of the registry of started runs is of a running attempt, or a plain worker of RQ's that beats.
local function current(member, token, status, held)
  local score = redis.call('ZSCORE', KEYS[3], member) or 'inf'
  return status == 'started' and token == held or score ~= 'inf' and tonumber(score) > now
end

local function mend(member)
  local id, token = string.match(member, '^([^:]*):?(.*)$')
  local job = JOB .. id
  if redis.call('TYPE', job)['ok'] ~= 'hash' then
    return forget(id, member)
  end
  local held = redis.call('HMGET', job, 'status', 'token', 'namespace', 'origin')
  local status, ours = held[1], held[2] or held[3]
  if not ours then
    return -- a plain job of RQ's
  end
  if status == 'started' and not redis.call('ZSCORE', KEYS[1], id) then
    adopt(id)
  elseif status == 'canceled' and redis.call('PTTL', job) == -1 then
    cancel(id, held[3] or '', held[4] or '')
  elseif status == 'queued' or status == 'rate_limited' or status == 'started' then
    stay(id)
  end
  if status == 'rate_limited' then
    wait(id, held[4] or '')
  end
  if token ~= '' and not current(member, token, status, held[2]) then
    redis.call('ZREM', KEYS[3], member)
  end
end

local failed
for i = 8, #ARGV do
  local done, why = pcall(mend, ARGV[i])
  if not done then
    failed = failed or (type(why) == 'table' and why.err or tostring(why))
  end
end
return {adopted, failed}
