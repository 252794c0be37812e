-- Removes from RQ's registries what has expired, and workers whose record is gone, as RQ's own maintenance does.
-- KEYS: set of all workers, set of a queue's workers, then registries whose scores say when an entry expires
-- ARGV: now in seconds, how many workers it looks at
local function bury(workers)
  for _, worker in ipairs(redis.call('SRANDMEMBER', workers, ARGV[2])) do
    if redis.call('EXISTS', worker) == 0 then
      redis.call('SREM', workers, worker)
    end
  end
end

local failed
local function try(step, key)
  local done, why = pcall(step, key)
  if not done then
    failed = failed or (type(why) == 'table' and why.err or tostring(why))
  end
end

for i = 3, #KEYS do
  try(function(registry) redis.call('ZREMRANGEBYSCORE', registry, 0, ARGV[1]) end, KEYS[i])
end
try(bury, KEYS[1])
try(bury, KEYS[2])
return failed and redis.error_reply(failed) or 1
