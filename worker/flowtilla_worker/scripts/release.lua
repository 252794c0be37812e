-- Hands a run back to the front of its queue, if it is still this attempt's. Returns 1, or 0.
-- KEYS: job, leases, wip registry, queue, queues
-- ARGV: token, run id, the queue's wake channel, and when the attempt is to be counted, the job's field that counts it
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'token')
redis.call('HSET', KEYS[1], 'status', 'queued')
if ARGV[4] then
  redis.call('HINCRBY', KEYS[1], ARGV[4], 1)
end
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2] .. ':' .. ARGV[1])
redis.call('SADD', KEYS[5], KEYS[4])
redis.call('LPUSH', KEYS[4], ARGV[2])
redis.call('PUBLISH', ARGV[3], '')
return 1
