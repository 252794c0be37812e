-- Renews a worker's record and the leases of its runs. Returns {whether RQ's record of the worker is there,
-- ids of runs that are no longer its own, ids of runs to cancel}.
-- KEYS: leases, worker
-- ARGV: lease in ms, seconds the worker's record lives, now as RQ writes it, prefix of job keys, how many of what
--       follows are fields of the record and their values, those, then id and token of each run
local known = redis.call('EXISTS', KEYS[2])
local runs = 6 + tonumber(ARGV[5])
if known == 1 then
  redis.call('HSET', KEYS[2], 'last_heartbeat', ARGV[3], unpack(ARGV, 6, runs - 1))
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
local time = redis.call('TIME')
local deadline = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
local lost, cancelled = {}, {}
for i = runs, #ARGV, 2 do
  local held = redis.call('HMGET', ARGV[4] .. ARGV[i], 'token', 'cancel')
  if held[1] ~= ARGV[i + 1] then
    table.insert(lost, ARGV[i])
  else
    redis.call('ZADD', KEYS[1], deadline, ARGV[i])
    redis.call('HSET', ARGV[4] .. ARGV[i], 'last_heartbeat', ARGV[3])
    if held[2] then
      table.insert(cancelled, ARGV[i])
    end
  end
end
return {known, lost, cancelled}
