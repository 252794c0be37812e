-- Queues the scheduled jobs of a queue whose time has come. Returns how many.
-- KEYS: scheduled registry, queue, queues
-- ARGV: now in seconds, prefix of job keys, the queue's wake channel, now as RQ writes it
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1000)
for _, id in ipairs(due) do
  local job = ARGV[2] .. id
  if redis.call('TYPE', job)['ok'] == 'hash' and redis.call('HGET', job, 'status') == 'scheduled' then
    -- First what may fail, for the queue's key may be damaged: the job then stays scheduled.
    redis.call('RPUSH', KEYS[2], id)
    redis.call('HSET', job, 'status', 'queued', 'enqueued_at', ARGV[4])
    redis.pcall('SADD', KEYS[3], KEYS[2])
  end
  redis.call('ZREM', KEYS[1], id)
end
if #due > 0 then
  redis.call('PUBLISH', ARGV[3], '')
end
return #due
