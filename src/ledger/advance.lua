-- Notes what the feed has put into the create queue: rows from the cursor on, and rows that had been handed back.
--
-- KEYS  1 batch    2 bytes    3 open    4 returned    5 unfed
-- ARGV  1 batch id    2 now (ms)    3 the cursor as the feed read it    4 the cursor now
--       5… what was enqueued, in pairs: index, errand id
-- Returns 1, or 0 if somebody else moved the cursor meanwhile: nothing was changed, and what was enqueued twice is
-- harmless, because only one claim of an attempt succeeds.

local batch, bytes, open, returned, unfed = unpack(KEYS)
local id, nowMs, before, after = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('HGET', batch, 'cursor') ~= before then return 0 end
redis.call('HSET', batch, 'cursor', after)
for at = 5, #ARGV, 2 do
  local index, errand = ARGV[at], ARGV[at + 1]
  local raw = redis.call('GETRANGE', bytes, index, index)
  local byte = raw == '' and 0 or string.byte(raw)
  local attempt, state = math.max(math.floor(byte / 16), 1), byte % 16
  -- A feed that stood still comes late: what waits there by now is another attempt, which it hasn't enqueued.
  if attempt == tonumber(string.match(errand, '%d+$')) then
    -- A row that was turned away since it was enqueued stays among the returned ones: a fresh one that stands there by
    -- now, or one that had been handed back and was so again (give-to-feed.lua notes it).
    local again = redis.call('HDEL', batch, 'again:' .. index) == 1
    local fresh = tonumber(index) >= tonumber(before)
    if not ((again or fresh) and redis.call('SISMEMBER', returned, index) == 1) then
      redis.call('SREM', returned, index)
      -- By now a fast worker may have claimed it, or even ended it: then it needs no place among the open ones.
      if state == NUMBERS.waiting then redis.call('ZADD', open, nowMs, errand) end
    end
  end
end
if tonumber(after) >= tonumber(redis.call('HGET', batch, 'items')) and redis.call('SCARD', returned) == 0 then
  redis.call('ZREM', unfed, id)
end
return 1
