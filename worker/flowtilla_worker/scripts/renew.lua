-- Renews the leases of a worker's runs, and its record. Returns {whether RQ's record of the worker is there,
-- ids of runs that are no longer its own, ids of runs to cancel}.
-- KEYS: leases, worker
-- ARGV: lease in ms, seconds the worker's record lives, now as RQ writes it, prefix of job keys, how many of what
--       follows are fields of the record and their values, those, then id and token of each run
-- First a write that needs no memory: those after it are then not refused when memory is full.
redis.pcall('ZREM', KEYS[1], '')
local runs = 6 + tonumber(ARGV[5])
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
local lost, cancelled = {}, {}

-- The worker had been taken for dead, and lives: that was not the run's doing.
local function forgive(job, status)
  if status ~= 'queued' and status ~= 'started' then
    return
  end
  redis.call('HDEL', job, 'taken')
  for _, counter in ipairs({'losses', 'strikes'}) do
    if (tonumber(redis.call('HGET', job, counter)) or 0) > 0 then
      redis.call('HINCRBY', job, counter, -1)
    end
  end
end

local function renew(id, token)
  local job = ARGV[4] .. id
  local held = redis.call('HMGET', job, 'token', 'cancel', 'taken', 'status')
  if held[1] ~= token then
    table.insert(lost, id)
    if held[3] == token then
      forgive(job, held[4])
    end
    return
  end
  redis.pcall('ZADD', KEYS[1], deadline, id)
  redis.call('HSET', job, 'last_heartbeat', ARGV[3])
  if held[2] then
    table.insert(cancelled, id)
  end
end

for i = runs, #ARGV, 2 do
  if not pcall(renew, ARGV[i], ARGV[i + 1]) then
    table.insert(lost, ARGV[i]) -- its job is damaged
  end
end

local known = redis.call('TYPE', KEYS[2])['ok'] == 'hash' and 1 or 0
if known == 1 then
  redis.pcall('HSET', KEYS[2], 'last_heartbeat', ARGV[3], unpack(ARGV, 6, runs - 1))
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return {known, lost, cancelled}
