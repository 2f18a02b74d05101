-- Adds a part to a batch that grows: its rows may be fed from now on. Publishing a part again changes nothing.
--
-- KEYS  1 batch    2 bytes    3 parts    4 unfed    5 unfinished
-- ARGV  1 batch id    2 the part's number    3 its first index    4 its rows    5 a state byte for void rows
--       6… indexes of rows that are void, since their input is another item already
-- Returns 1 if this call published it, 0 if it was published, -1 if an earlier part is missing, or the batch.

local batch, bytes, parts, unfed, unfinished = unpack(KEYS)
local id, part, first, rows, voidByte = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local openedAt = redis.call('HGET', batch, 'opened_at')
if not openedAt then return -1 end
local published = tonumber(redis.call('HGET', batch, 'parts') or 0)
if part < published then return 0 end
if part > published then return -1 end

redis.call('HSET', batch, 'parts', part + 1)
redis.call('HINCRBY', batch, 'openings', 1)
redis.call('HDEL', batch, 'finished_at')
redis.call('HINCRBY', batch, 'items', rows)
redis.call('HINCRBY', batch, 'waiting', rows - (#ARGV - 5))
redis.call('ZADD', parts, first, part)
for at = 6, #ARGV do
  redis.call('SETRANGE', bytes, ARGV[at], string.char(voidByte))
  redis.call('HINCRBY', batch, 'canceled', 1)
end
if redis.call('HEXISTS', batch, 'paused') == 0 then redis.call('ZADD', unfed, openedAt, id) end
redis.call('ZADD', unfinished, openedAt, id)
return 1
