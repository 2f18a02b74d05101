-- Puts back a batch that Redis has lost, whole: nobody ever sees a part of it. A batch that is there is left as it is.
--
-- KEYS  1 batch    2 bytes    3 parts    4 failures    5 latest    6 duplicates    7 unclear    8 unfed    9 unfinished
--       10 canceling    11 predictions bound this hour
-- ARGV  1 batch id    2 the common beginning of the items' keys    3 one byte an item, as far as any was touched
--       4 a JSON object:
--         fields      of the batch's hash, flat: name, value, name, value
--         openedAt    (ms)
--         parts       the first index of each part of a batch of singles
--         failures    of the hash of failures, flat
--         latest      indexes, the newest first
--         duplicates  prediction ids
--         unclear     of each unclear item: index, attempt, between which moments it may have been bought (ms, ms), and
--                     whether it is to be canceled
--         bound       prediction ids that attempts hold, and the attempts' errand ids: id, errand, id, errand
--         unfed, unfinished, canceling   whether the batch stands in those lists
-- Returns 1, or 0 if there is such a batch.

local batch, bytes, parts, failures, latest, duplicates, unclear, unfed, unfinished, canceling, boundNow =
  unpack(KEYS)
-- As in move.lua.
local BOUND_FOR_S = 3 * 3600
local id, itemKeys = ARGV[1], ARGV[2]
local m = cjson.decode(ARGV[4])

if redis.call('HEXISTS', batch, 'opened_at') == 1 then return 0 end
-- A field or two may have been written by who had read the batch before it was lost.
for _, key in ipairs({ batch, bytes, parts, failures, latest, duplicates }) do redis.call('DEL', key) end

for at = 1, #m.fields, 2 do redis.call('HSET', batch, m.fields[at], m.fields[at + 1]) end
if ARGV[3] ~= '' then redis.call('SET', bytes, ARGV[3]) end
for number, first in ipairs(m.parts) do redis.call('ZADD', parts, first, number - 1) end
for at = 1, #m.failures, 2 do redis.call('HSET', failures, m.failures[at], m.failures[at + 1]) end
for _, index in ipairs(m.latest) do redis.call('RPUSH', latest, index) end
for _, prediction in ipairs(m.duplicates) do redis.call('SADD', duplicates, prediction) end
for _, one in ipairs(m.unclear) do
  local index, attempt, from, to, cancel = unpack(one)
  redis.call('HSET', itemKeys .. index, 'nonce', 'lost-' .. to, 'intent_from', from, 'intent_at', to)
  if cancel then redis.call('HSET', itemKeys .. index, 'cancel', 1) end
  redis.call('ZADD', unclear, to, id .. '-' .. index .. '-' .. attempt)
end
for at = 1, #m.bound, 2 do redis.call('HSET', boundNow, m.bound[at], m.bound[at + 1]) end
if #m.bound > 0 then redis.call('EXPIRE', boundNow, BOUND_FOR_S) end
if m.unfed then redis.call('ZADD', unfed, m.openedAt, id) end
if m.unfinished then redis.call('ZADD', unfinished, m.openedAt, id) end
if m.canceling then redis.call('ZADD', canceling, m.canceling, id) end
return 1
