-- Puts runs whose lease expired back to the front of their queues, the one that expired first foremost. Returns
-- their ids.
-- KEYS: leases
-- ARGV: how many at most, prefixes: job, wip registry, queue, wake channel
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expired = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
local queued = {}
for i = #expired, 1, -1 do
  local id = expired[i]
  local job = ARGV[2] .. id
  redis.call('ZREM', KEYS[1], id)
  local held = redis.call('HMGET', job, 'status', 'origin', 'token')
  if held[1] == 'started' and held[2] and held[3] then
    redis.call('ZREM', ARGV[3] .. held[2], id .. ':' .. held[3])
    redis.call('HDEL', job, 'token')
    redis.call('HSET', job, 'status', 'queued')
    redis.call('HINCRBY', job, 'losses', 1)
    redis.call('LPUSH', ARGV[4] .. held[2], id)
    redis.call('PUBLISH', ARGV[5] .. held[2], '')
    table.insert(queued, id)
  end
end
return queued
