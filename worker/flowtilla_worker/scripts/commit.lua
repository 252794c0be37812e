-- Writes what an attempt has to say, if the run is still its own. Returns 'ok', 'cancel' (ok, and stop), or 'lost'.
-- KEYS: job, stages, values, log, leases, wip registry, registry to end in, results, ended, worker
-- ARGV: token, run id, lines the log keeps, and what to write, as JSON whose leaves are strings:
--       {stages, values, job: {field: text}, lines: [text], first: the number of the first line in the whole log,
--       further: '1' when a stage has ended that had not in any attempt}, and
--       when the run ends {end: {keep: seconds to keep it, over: the second that is over, member: of ended, forget: '1' when the values may go, counter: the worker's,
--       worked: seconds, result: {field: text}}}
local job = redis.pcall('HMGET', KEYS[1], 'token', 'ended_by', 'cancel', 'limits')
if misplaced(job) then
  return 'lost'
elseif job.err then
  return job
elseif job[1] ~= ARGV[1] then
  -- Who sends again how it ended the run, since the answer was lost, has lost nothing.
  return job[2] == ARGV[1] and 'ok' or 'lost'
end
local say = cjson.decode(ARGV[4])
local over = say['end']
-- First a write that needs no memory: those after it are then not refused when memory is full. Strikes are those in a
-- row: whatever took down the workers before, the run got on.
redis.call('HDEL', KEYS[1], '', unpack(say.further == '1' and {'strikes', 'cluster_strikes'} or {}))

-- Does a command on a key of the run's own; what stands there that can be neither read nor added to goes.
local function on_own(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if misplaced(reply) then
    redis.call('DEL', key)
    reply = redis.pcall(command, key, ...)
  end
  return reply
end

-- Some at a time, since a call takes no more than some thousand arguments.
local function write(key, fields)
  local some = {}
  local function send()
    local reply = #some > 0 and on_own('HSET', key, unpack(some))
    if type(reply) == 'table' then
      error(reply, 0)
    end
    some = {}
  end
  for field, text in pairs(fields) do
    table.insert(some, field)
    table.insert(some, text)
    if #some == 2000 then
      send()
    end
  end
  send()
end

write(KEYS[2], say.stages)
write(KEYS[3], say.values)
if over then
  say.job.ended_by = ARGV[1]
end
write(KEYS[1], say.job)
for i, line in ipairs(say.lines) do
  -- Named by attempt and number: a line that is sent again is there, and Redis takes none twice.
  local id = string.format('%s-%d', string.match(ARGV[1], '^%d+'), say.first + i - 1)
  local added = on_own('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], id, 'line', line)
  if type(added) == 'table' and not string.find(added.err, '%WID%W') then
    return added
  end
end
if not over then
  return job[3] and 'cancel' or 'ok'
end

local result = {}
for field, text in pairs(over.result) do
  table.insert(result, field)
  table.insert(result, text)
end
if type(redis.pcall('XADD', KEYS[8], 'MAXLEN', 10, '*', unpack(result))) == 'table' then
  -- Somebody put something else there, or an entry with the last name that there is.
  redis.call('DEL', KEYS[8])
  redis.call('XADD', KEYS[8], '*', unpack(result))
end
redis.call('HDEL', KEYS[1], 'token', 'cancel', 'first_began')
-- These belong to all runs: what is damaged there is left as it is.
for _, change in ipairs({
  {'ZREM', KEYS[5], ARGV[2]},
  {'ZREM', KEYS[6], ARGV[2] .. ':' .. ARGV[1]},
  {'ZADD', KEYS[7], over.over, ARGV[2]},
  {'ZADD', KEYS[9], over.over, over.member},
}) do
  local changed = redis.pcall(unpack(change))
  if type(changed) == 'table' and not misplaced(changed) then
    return changed
  end
end
if job[4] then
  pcall(free, ARGV[2])
end
if over.forget == '1' then
  redis.call('DEL', KEYS[3])
else
  redis.call('EXPIRE', KEYS[3], over.keep)
end
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[8]}) do
  redis.call('EXPIRE', key, over.keep)
end
-- The whole log is in storage by now; who follows the run still reads its end here.
redis.call('EXPIRE', KEYS[4], 300)
if redis.call('TYPE', KEYS[10])['ok'] == 'hash' then
  redis.pcall('HINCRBY', KEYS[10], over.counter, 1)
  redis.pcall('HINCRBYFLOAT', KEYS[10], 'total_working_time', over.worked)
end
return 'ok'
