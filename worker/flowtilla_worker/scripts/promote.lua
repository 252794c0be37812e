-- Queues the scheduled jobs of a queue whose time has come. Returns how many.
-- KEYS: scheduled registry
-- ARGV: queue, now in seconds, prefix of job keys, now as RQ writes it
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', 0, 1000)
for _, id in ipairs(due) do
  local job = ARGV[3] .. id
  if redis.call('TYPE', job)['ok'] == 'hash' and redis.call('HGET', job, 'status') == 'scheduled' then
    -- First what may fail, for the line's key may be damaged: the job then stays scheduled.
    push(ARGV[1], id, false)
    redis.call('HSET', job, 'status', 'queued', 'enqueued_at', ARGV[4])
  end
  redis.call('ZREM', KEYS[1], id)
end
return #due
