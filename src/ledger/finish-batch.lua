-- Notes that a batch is finished. Doing so again changes nothing.
--
-- KEYS  1 batch    2 unfinished    3 unfed
-- ARGV  1 batch id    2 now (ms)    3 how often something of it had been opened before its results were read
-- Returns 1, or 0 if another attempt or part was opened since, or there is no such batch: nothing was changed.

local batch, unfinished, unfed = unpack(KEYS)
local id, nowMs, openings = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HEXISTS', batch, 'opened_at') == 0 then return 0 end
if (redis.call('HGET', batch, 'openings') or '0') ~= openings then return 0 end
redis.call('HSET', batch, 'finished_at', nowMs)
redis.call('ZREM', unfinished, id)
redis.call('ZREM', unfed, id)
return 1
