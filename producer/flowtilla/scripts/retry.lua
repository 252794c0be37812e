-- Queues an ended run again; what it committed stays, so its finished stages do not run again. Returns its former status.
-- KEYS: job, queue, queues, failed registry, canceled registry, ended, stages, values, log
-- ARGV: id, "front" | "back", now as RQ writes it, the queue's wake channel, member of the ended set
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'failed' and status ~= 'canceled' and status ~= 'stopped' then
  return status
end
redis.call('HDEL', KEYS[1], 'cancel', 'failure', 'quarantined', 'ended_at', 'worker_name', 'taken', 'lost_worker',
  'losses', 'crashes', 'strikes', 'cluster_losses', 'cluster_strikes', 'cluster_lost_by', 'cluster_lost_at', 'first_began')
redis.call('HSET', KEYS[1], 'status', 'queued', 'enqueued_at', ARGV[3])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[5])
for _, key in ipairs({KEYS[1], KEYS[7], KEYS[8], KEYS[9]}) do
  redis.call('PERSIST', key)
end
redis.call('SADD', KEYS[3], KEYS[2])
if redis.call(ARGV[2] == 'front' and 'LPUSH' or 'RPUSH', KEYS[2], ARGV[1]) == 1 then
  redis.call('PUBLISH', ARGV[4], '')
end
return status
