-- Cancels a run. Returns 'cancelled' when it had not begun, 'asked' when its worker was told, or its status when it had ended.
-- KEYS: job, results, scheduled registry, canceled registry, ended, stages, values, log
-- ARGV: id, queue, now as RQ writes it, seconds to keep the job, seconds since the epoch then, prefix of the workers'
--       command channels, member of the ended set
local status = redis.call('HGET', KEYS[1], 'status')
if not status then
  return false
end
if status == 'started' then
  redis.call('HSET', KEYS[1], 'cancel', '1')
  local worker = redis.call('HGET', KEYS[1], 'worker_name') or ''
  -- As RQ's own tools say it, but for `noted`: with them nothing is written that outlives the message.
  redis.call('PUBLISH', ARGV[6] .. worker, cjson.encode({command = 'stop-job', job_id = ARGV[1], noted = true}))
  return 'asked'
end
if status ~= 'queued' and status ~= 'rate_limited' and status ~= 'scheduled' and status ~= 'deferred' then
  return status
end
redis.call('LREM', line_of(ARGV[2], namespace_of(ARGV[1])), 0, ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('HSET', KEYS[1], 'status', 'canceled', 'ended_at', ARGV[3])
redis.call('XADD', KEYS[2], 'MAXLEN', 10, '*', 'type', '3', 'worker_name', '')
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[1])
redis.call('ZADD', KEYS[5], ARGV[5], ARGV[7])
pcall(free, ARGV[1])
-- An attempt before may have left what it wrote; its log is in no file yet.
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[6], KEYS[7], KEYS[8]}) do
  redis.call('EXPIRE', key, ARGV[4])
end
return 'cancelled'
