-- Puts back a batch that Redis has lost, whole: nobody ever sees a part of it. A batch that is there is left as it is.
--
-- KEYS  1 batch    2 bytes    3 parts    4 failures    5 latest    6 duplicates    7 unclear    8 unfed    9 unfinished
--       10 canceling
-- ARGV  1 batch id    2 one byte an item, as far as any was touched
--       3 a JSON object:
--         fields      of the batch's hash, flat: name, value, name, value
--         openedAt    (ms)
--         parts       the first index of each part of a batch of singles
--         failures    of the hash of failures, flat
--         latest      indexes, the newest first
--         duplicates  prediction ids
--         unclear     of each unclear item, flat: until when it may have been bought (ms), index-attempt; what else is known
--                     of it was put back before (restore-items.lua)
--         unfed, unfinished, canceling   whether the batch stands in those lists
-- Returns 1, or 0 if there is such a batch.

local batch, bytes, parts, failures, latest, duplicates, unclear, unfed, unfinished, canceling = unpack(KEYS)
local id = ARGV[1]
local m = cjson.decode(ARGV[3])

if redis.call('HEXISTS', batch, 'opened_at') == 1 then return 0 end
-- A field or two may have been written by who had read the batch before it was lost.
for _, key in ipairs({ batch, bytes, parts, failures, latest, duplicates }) do redis.call('DEL', key) end

for at = 1, #m.fields, 2 do redis.call('HSET', batch, m.fields[at], m.fields[at + 1]) end
if ARGV[2] ~= '' then redis.call('SET', bytes, ARGV[2]) end
for number, first in ipairs(m.parts) do redis.call('ZADD', parts, first, number - 1) end
for at = 1, #m.failures, 2 do redis.call('HSET', failures, m.failures[at], m.failures[at + 1]) end
for _, index in ipairs(m.latest) do redis.call('RPUSH', latest, index) end
for _, prediction in ipairs(m.duplicates) do redis.call('SADD', duplicates, prediction) end
for at = 1, #m.unclear, 2 do redis.call('ZADD', unclear, m.unclear[at], id .. '-' .. m.unclear[at + 1]) end
if m.unfed then redis.call('ZADD', unfed, m.openedAt, id) end
if m.unfinished then redis.call('ZADD', unfinished, m.openedAt, id) end
if m.canceling then redis.call('ZADD', canceling, m.canceling, id) end
return 1
