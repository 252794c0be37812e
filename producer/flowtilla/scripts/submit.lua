-- Enqueues a run unless its id is taken. Returns 1, or 0 when a job of this id exists.
-- KEYS: job, queue, scheduled registry, index of the namespace's runs
-- ARGV: id, "front" | "back" | when to queue (seconds since the epoch), submitted (seconds), the queue's wake channel,
--       then the job's fields and values
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local id, place = ARGV[1], ARGV[2]
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('ZADD', KEYS[4], ARGV[3], id)
if tonumber(place) then
  redis.call('ZADD', KEYS[3], place, id)
  return 1
end
-- A longer queue means that its workers are awake or have no free slot.
if redis.call(place == 'front' and 'LPUSH' or 'RPUSH', KEYS[2], id) == 1 then
  redis.call('PUBLISH', ARGV[4], '')
end
return 1
