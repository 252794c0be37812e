-- Takes back the places that runs have which are neither queued nor started any more, and lets others have them.
-- KEYS: runs that have a place
-- ARGV: key of the limit
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, 999)) do
  local status = redis.pcall('HGET', KEY.job .. id, 'status')
  if status ~= 'queued' and status ~= 'started' then
    redis.call('ZREM', KEYS[1], id)
  end
end
fill(ARGV[1])
