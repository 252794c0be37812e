-- Puts runs whose lease expired back to the front of their queues, the one that expired first foremost. Returns
-- their ids.
-- KEYS: leases, when somebody looked last
-- ARGV: how many at most, lease in ms, prefixes: job, wip registry, worker
-- First a write that needs no memory: those after it are then not refused when memory is full.
redis.call('ZREM', KEYS[1], '')
local JOB, WIP, WORKER = ARGV[3], ARGV[4], ARGV[5]
-- Milliseconds without a look by anybody after which Redis must have been away: each worker looks every second, and a
-- lease that was renewed in time outlives half a lease without.
local GAP = math.max(2000, math.min(5000, ARGV[2] / 2))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local looked = redis.call('HMGET', KEYS[2], 'at', 'patient_until')
local patient_until = math.min(tonumber(looked[2]) or 0, now + ARGV[2])
if now - (tonumber(looked[1]) or 0) > GAP then
  -- Nobody could look, so nobody could renew either: the living get the time to.
  patient_until = now + ARGV[2]
end
redis.call('HSET', KEYS[2], 'at', now, 'patient_until', patient_until)
if now < patient_until then
  return {}
end

-- Returns what is known of a worker that is gone, as JSON.
local function described(worker)
  local names = {'hostname', 'pid', 'ending', 'peak_memory', 'last_heartbeat'}
  local known = {worker = worker}
  for i, value in ipairs(redis.call('HMGET', WORKER .. worker, unpack(names))) do
    known[names[i]] = value or nil
  end
  return cjson.encode(known), known.ending
end

local queued = {}
local function take(id)
  local job = JOB .. id
  local held = redis.call('HMGET', job, 'status', 'origin', 'token', 'worker_name')
  if held[1] ~= 'started' or not held[2] or not held[3] then
    return
  end
  local known, worker, ending = pcall(described, held[4] or '')
  redis.pcall('ZREM', WIP .. held[2], id .. ':' .. held[3])
  redis.call('HDEL', job, 'token')
  redis.call('HSET', job, 'status', 'queued', 'taken', held[3], 'lost_worker', known and worker or '{}')
  push(held[2], id, true)
  table.insert(queued, id)
  redis.pcall('HINCRBY', job, ending and 'crashes' or 'losses', 1)
  redis.pcall('HINCRBY', job, 'strikes', 1)
end

local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for i = #expired, 1, -1 do
  redis.call('ZREM', KEYS[1], expired[i])
  pcall(take, expired[i])
end
return queued
