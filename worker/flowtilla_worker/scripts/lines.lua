-- Returns the newest log lines that earlier attempts of a run left, the newest first.
-- KEYS: log
-- ARGV: how many at most, and how many bytes; what exceeds what is left of them is left out
if redis.call('TYPE', KEYS[1])['ok'] ~= 'stream' then
  return {}
end
local most, bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local found, before = {}, '+'
repeat
  -- A few at a time: somebody may have put there what is larger than memory when it is held twice.
  local page = redis.call('XREVRANGE', KEYS[1], before, '-', 'COUNT', 100)
  for _, entry in ipairs(page) do
    local size = 0
    for _, text in ipairs(entry[2]) do
      size = size + #text
    end
    if size <= bytes then
      bytes = bytes - size
      table.insert(found, entry)
    end
    most, before = most - 1, '(' .. entry[1]
  end
until #page == 0 or most <= 0
return found
