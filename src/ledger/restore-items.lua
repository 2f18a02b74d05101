-- Puts back what Redis had by item of a batch that it has lost, some at a time and before the batch itself: a million
-- items in one script would hold everybody up. Until the batch is there nobody looks at them. Where it is there,
-- nothing is changed.
--
-- KEYS  1 batch    2 predictions bound this hour
-- ARGV  1 the common beginning of the items' keys    2 a JSON object:
--         unclear   of each unclear item: index, between which moments it may have been bought (ms, ms), and
--                   whether it is to be canceled
--         bound     prediction ids that attempts hold, and the attempts' errand ids: id, errand, id, errand
-- Returns 1, or 0 if there is such a batch.

local batch, boundNow = unpack(KEYS)
local itemKeys = ARGV[1]
local m = cjson.decode(ARGV[2])

if redis.call('HEXISTS', batch, 'opened_at') == 1 then return 0 end
for _, one in ipairs(m.unclear) do
  local index, from, to, cancel = unpack(one)
  redis.call('HSET', itemKeys .. index, 'nonce', 'lost-' .. to, 'intent_from', from, 'intent_at', to)
  if cancel then redis.call('HSET', itemKeys .. index, 'cancel', 1) end
end
for at = 1, #m.bound, 2 do redis.call('HSET', boundNow, m.bound[at], m.bound[at + 1]) end
if #m.bound > 0 then redis.call('EXPIRE', boundNow, BOUND_FOR_S) end
return 1
