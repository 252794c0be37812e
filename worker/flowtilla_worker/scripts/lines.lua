-- Returns the log lines that earlier attempts of a run left.
-- KEYS: log
return redis.call('XRANGE', KEYS[1], '-', '+')
