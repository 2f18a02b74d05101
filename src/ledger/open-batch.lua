-- Opens a batch: its hash, its counters, its place among those to be fed. Opening it again changes nothing.
--
-- KEYS  1 batch    2 unfed    3 unfinished
-- ARGV  1 batch id    2 opened at (ms)    3 items    4… fields of the hash: name, value, name, value
-- Returns 1 if this call opened it, 0 if it was open.

local batch, unfed, unfinished = unpack(KEYS)
local id, openedAt, items = ARGV[1], ARGV[2], tonumber(ARGV[3])

if redis.call('HEXISTS', batch, 'opened_at') == 1 then return 0 end
redis.call('HSET', batch, 'opened_at', openedAt, 'items', items, 'waiting', items, 'cursor', 0, 'parts', 0, unpack(ARGV, 4))
redis.call('ZADD', unfinished, openedAt, id)
if items > 0 then
  redis.call('HSET', batch, 'parts', 1)
  redis.call('ZADD', unfed, openedAt, id)
end
return 1
