-- Returns the log lines that earlier attempts of a run left.
-- KEYS: log
return redis.call('TYPE', KEYS[1])['ok'] == 'stream' and redis.call('XRANGE', KEYS[1], '-', '+') or {}
