-- Enqueues a run unless its id is taken. Returns 1, or 0 when a job of this id exists.
-- KEYS: job, queue, queues, scheduled registry, index of the namespace's runs, namespaces
-- ARGV: id, "front" | "back" | when to queue (seconds since the epoch), submitted (seconds), namespace,
--       the queue's wake channel, then the job's fields and values
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local id, place = ARGV[1], ARGV[2]
redis.call('HSET', KEYS[1], unpack(ARGV, 6))
redis.call('ZADD', KEYS[5], ARGV[3], id)
redis.call('SADD', KEYS[6], ARGV[4])
redis.call('SADD', KEYS[3], KEYS[2])
if tonumber(place) then
  redis.call('ZADD', KEYS[4], place, id)
  return 1
end
local length = redis.call(place == 'front' and 'LPUSH' or 'RPUSH', KEYS[2], id)
-- A longer queue means that its workers are awake or have no free slot.
if length == 1 then
  redis.call('PUBLISH', ARGV[5], '')
end
return 1
