-- Hands a run back to the front of its queue, if it is still this attempt's. Returns 1, or 0.
-- KEYS: job, leases, wip registry
-- ARGV: token, run id, queue, why: of these, 'broke' and 'lost its cluster' are counted
if redis.call('TYPE', KEYS[1])['ok'] ~= 'hash' or redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'token')
redis.call('HSET', KEYS[1], 'status', 'queued')
if ARGV[4] == 'broke' then
  redis.call('HINCRBY', KEYS[1], 'crashes', 1)
  redis.call('HINCRBY', KEYS[1], 'strikes', 1)
elseif ARGV[4] == 'lost its cluster' then
  -- Workers that share a cluster find it gone one after another, and the run in the hands of each: that is one loss.
  local worker, now = redis.call('HGET', KEYS[1], 'worker_name'), tonumber(redis.call('TIME')[1])
  local last = redis.call('HMGET', KEYS[1], 'cluster_lost_by', 'cluster_lost_at')
  if not last[1] or last[1] == worker or now - tonumber(last[2]) > 20 then
    redis.call('HINCRBY', KEYS[1], 'cluster_losses', 1)
    redis.call('HINCRBY', KEYS[1], 'cluster_strikes', 1)
    redis.call('HSET', KEYS[1], 'cluster_lost_by', worker, 'cluster_lost_at', now)
  end
end
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2] .. ':' .. ARGV[1])
push(ARGV[3], ARGV[2], true)
return 1
