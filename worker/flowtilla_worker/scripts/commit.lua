-- Writes what an attempt has to say, if the run is still its own. Returns 'ok', 'cancel' (ok, and stop), or 'lost'.
-- KEYS: job, stages, values, log, leases, wip registry, registry to end in, results, ended, worker
-- ARGV: token, run id, lines the log keeps, then four lists, each as its length and its entries: stage records, committed
--       values, job fields, log lines; then, when the run ends: seconds to keep it, the second that is over, member of
--       ended, '1' when the values may go, the worker's counter, seconds worked, and the list of the result's fields
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 'lost'
end
local at = 4
local function take()
  at = at + 1
  return ARGV[at - 1]
end
local function list(write)
  local length = tonumber(take())
  if length > 0 then
    write(at, at + length - 1)
    at = at + length
  end
end
local function fields_of(key)
  return function(first, last)
    redis.call('HSET', key, unpack(ARGV, first, last))
  end
end
list(fields_of(KEYS[2]))
list(fields_of(KEYS[3]))
list(fields_of(KEYS[1]))
list(function(first, last)
  for i = first, last do
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*', 'line', ARGV[i])
  end
end)
if not ARGV[at] then
  return redis.call('HEXISTS', KEYS[1], 'cancel') == 1 and 'cancel' or 'ok'
end

local id, token = ARGV[2], ARGV[1]
local keep, over, member, forget, counter, worked = take(), take(), take(), take(), take(), take()
list(function(first, last)
  redis.call('XADD', KEYS[8], 'MAXLEN', 10, '*', unpack(ARGV, first, last))
end)
redis.call('HDEL', KEYS[1], 'token', 'cancel')
redis.call('ZREM', KEYS[5], id)
redis.call('ZREM', KEYS[6], id .. ':' .. token)
redis.call('ZADD', KEYS[7], over, id)
redis.call('ZADD', KEYS[9], over, member)
if forget == '1' then
  redis.call('DEL', KEYS[3])
end
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[8]}) do
  redis.call('EXPIRE', key, keep)
end
-- The whole log is in storage by now; what follows the run still reads its end here.
redis.call('EXPIRE', KEYS[4], 300)
if redis.call('EXISTS', KEYS[10]) == 1 then
  redis.call('HINCRBY', KEYS[10], counter, 1)
  redis.call('HINCRBYFLOAT', KEYS[10], 'total_working_time', worked)
end
return 'ok'
