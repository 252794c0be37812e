-- Writes what an attempt has to say, if the run is still its own. Returns 'ok', 'cancel' (ok, and stop), or 'lost'.
-- KEYS: job, stages, values, log, leases, wip registry, registry to end in, results, ended, worker
-- ARGV: token, run id, lines the log keeps, and what to write, as JSON whose leaves are strings:
--       {stages, values, job: {field: text}, lines: [text], first: the number of the first line in the whole log,
--       further: '1' when a stage has ended that had not in any attempt}, and
--       when the run ends {end: {keep: seconds to keep it, over: the second that is over, member: of ended, forget: '1' when the values may go, counter: the worker's,
--       worked: seconds, result: {field: text}}}
-- Whether a key is of its kind. Somebody may have put something else there, and that must not keep a run from ending.
local function is(i, kind)
  local found = redis.call('TYPE', KEYS[i])['ok']
  return found == kind or found == 'none'
end

if not is(1, 'hash') then
  return 'lost'
end
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  -- Who sends again how it ended the run, since the answer was lost, has lost nothing.
  return redis.call('HGET', KEYS[1], 'ended_by') == ARGV[1] and 'ok' or 'lost'
end
-- First a write that needs no memory: those after it are then not refused when memory is full.
redis.call('HDEL', KEYS[1], '')
-- What stands where the run's own keys belong can be neither read nor added to.
for i, kind in pairs({[2] = 'hash', [3] = 'hash', [4] = 'stream', [8] = 'stream'}) do
  if not is(i, kind) then
    redis.call('DEL', KEYS[i])
  end
end
local say = cjson.decode(ARGV[4])
if say.further == '1' then
  -- Whatever took down the workers before, the run got on: strikes are those in a row.
  redis.call('HDEL', KEYS[1], 'strikes', 'cluster_strikes')
end

local function write(key, fields)
  for field, text in pairs(fields) do
    redis.call('HSET', key, field, text)
  end
end

write(KEYS[2], say.stages)
write(KEYS[3], say.values)
write(KEYS[1], say.job)
for i, line in ipairs(say.lines) do
  -- Named by attempt and number: a line that is sent again is there, and Redis takes none twice.
  local id = string.format('%s-%d', string.match(ARGV[1], '^%d+'), say.first + i - 1)
  local added = redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], id, 'line', line)
  if type(added) == 'table' and not string.find(added.err, '%WID%W') then
    return added
  end
end
local over = say['end']
if not over then
  return redis.call('HEXISTS', KEYS[1], 'cancel') == 1 and 'cancel' or 'ok'
end

local result = {}
for field, text in pairs(over.result) do
  table.insert(result, field)
  table.insert(result, text)
end
if type(redis.pcall('XADD', KEYS[8], 'MAXLEN', 10, '*', unpack(result))) == 'table' then
  -- Somebody gave it the last name that there is.
  redis.call('DEL', KEYS[8])
  redis.call('XADD', KEYS[8], '*', unpack(result))
end
redis.call('HDEL', KEYS[1], 'token', 'cancel', 'first_began')
redis.call('HSET', KEYS[1], 'ended_by', ARGV[1])
-- These belong to all runs: what is damaged there is left as it is.
for i, change in pairs({
  [5] = {'ZREM', KEYS[5], ARGV[2]},
  [6] = {'ZREM', KEYS[6], ARGV[2] .. ':' .. ARGV[1]},
  [7] = {'ZADD', KEYS[7], over.over, ARGV[2]},
  [9] = {'ZADD', KEYS[9], over.over, over.member},
}) do
  if is(i, 'zset') then
    redis.call(unpack(change))
  end
end
pcall(free, ARGV[2])
if over.forget == '1' then
  redis.call('DEL', KEYS[3])
end
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3], KEYS[8]}) do
  redis.call('EXPIRE', key, over.keep)
end
-- The whole log is in storage by now; who follows the run still reads its end here.
redis.call('EXPIRE', KEYS[4], 300)
if redis.call('TYPE', KEYS[10])['ok'] == 'hash' then
  redis.pcall('HINCRBY', KEYS[10], over.counter, 1)
  redis.pcall('HINCRBYFLOAT', KEYS[10], 'total_working_time', over.worked)
end
return 'ok'
