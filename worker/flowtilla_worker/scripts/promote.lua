-- Queues the scheduled jobs of a queue whose time has come. Returns how many.
-- KEYS: scheduled registry, queue, queues
-- ARGV: now in seconds, prefix of job keys, the queue's wake channel, now as RQ writes it
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1000)
for _, id in ipairs(due) do
  redis.call('ZREM', KEYS[1], id)
  if redis.call('HGET', ARGV[2] .. id, 'status') == 'scheduled' then
    redis.call('HSET', ARGV[2] .. id, 'status', 'queued', 'enqueued_at', ARGV[4])
    redis.call('SADD', KEYS[3], KEYS[2])
    redis.call('RPUSH', KEYS[2], id)
  end
end
if #due > 0 then
  redis.call('PUBLISH', ARGV[3], '')
end
return #due
