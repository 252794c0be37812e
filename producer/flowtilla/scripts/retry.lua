-- Queues an ended run again; what it committed stays, so its finished stages do not run again. Returns its former status.
-- KEYS: job, failed registry, canceled registry, ended, stages, values, log
-- ARGV: id, queue, "front" | "back", now as RQ writes it, member of the ended set
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'failed' and status ~= 'canceled' and status ~= 'stopped' then
  return status
end
redis.call('HDEL', KEYS[1], 'cancel', 'failure', 'quarantined', 'ended_at', 'worker_name', 'taken', 'lost_worker',
  'losses', 'crashes', 'strikes', 'cluster_losses', 'cluster_strikes', 'cluster_lost_by', 'cluster_lost_at', 'first_began')
redis.call('HSET', KEYS[1], 'status', 'queued', 'enqueued_at', ARGV[4])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[5])
for _, key in ipairs({KEYS[1], KEYS[5], KEYS[6], KEYS[7]}) do
  redis.call('PERSIST', key)
end
push(ARGV[2], ARGV[1], ARGV[3] == 'front')
return status
