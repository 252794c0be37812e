-- Tells whether it is the caller's turn to sweep: one worker of the fleet each time. Returns 1, or 0.
-- KEYS: when the last sweep began
-- ARGV: milliseconds from one sweep to the next
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Whatever else somebody put there counts as no sweep, and is overwritten.
local last = redis.pcall('GET', KEYS[1])
local since = type(last) == 'string' and tonumber(last) and now - last
if since and since >= 0 and since < tonumber(ARGV[1]) then
  return 0
end
-- First a write that needs no memory: the one after it is then not refused when memory is full, and sweeping frees some.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], string.format('%d', now), 'PX', ARGV[1])
return 1
