-- Notes how a worker ended, and lets its leases run out at once. Returns how many.
-- KEYS: leases, worker, what it was told, what is told the worker that is started in its place
-- ARGV: the worker's name, how it ended, prefix of job keys
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HSET', KEYS[2], 'ending', ARGV[2])
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('RENAME', KEYS[3], KEYS[4])
end
local held = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if redis.pcall('HGET', ARGV[3] .. id, 'worker_name') == ARGV[1] then
    redis.call('ZADD', KEYS[1], 0, id)
    held = held + 1
  end
end
return held
