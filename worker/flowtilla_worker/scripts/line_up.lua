-- Lets the lines of a queue take turns that have runs and do not, and forgets runs that do not wait for a limit any
-- more; what a lost or damaged key leaves behind would stay for ever.
-- KEYS: runs of the queue that wait for a limit, namespaces that have come
-- ARGV: queue, how many of those it looks at, then the namespaces that have a line
for _, key in ipairs({KEYS[1], KEYS[2]}) do
  if redis.call('TYPE', key)['ok'] ~= 'set' then
    redis.call('DEL', key)
  end
end
for i = 3, #ARGV do
  local line = line_of(ARGV[1], ARGV[i])
  if redis.call('TYPE', line)['ok'] == 'list' then
    redis.call('SADD', KEYS[2], ARGV[i])
  else
    redis.call('SREM', KEY.queues, line)
  end
end
for _, id in ipairs(redis.call('SRANDMEMBER', KEYS[1], ARGV[2])) do
  if redis.pcall('HGET', KEY.job .. id, 'status') ~= 'rate_limited' then
    redis.call('SREM', KEYS[1], id)
    redis.pcall('SREM', KEYS[1] .. '@' .. namespace_of(id), id)
  end
end
