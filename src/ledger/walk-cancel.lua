-- Cancels a stretch of a canceled batch: what waits ends here, unbought; what is in flight is named, to be woken.
-- Naming where a stretch begins says that everything before it has been woken. Walking a stretch again changes nothing.
--
-- NUMBERS (waiting = 0, …) is prepended from src/core/item.ts.
--
-- KEYS  1 batch    2 bytes    3 canceling    4 unfed    5 returned    6 open
-- ARGV  1 batch id    2 where the stretch begins, or '' for where the walk stands    3 how many items to look at, at most
-- Returns { where the next stretch begins; 1 if this one began at the end, so that the walk is over, else 0; items of the
--           batch that haven't ended; of each running item: index, attempt… }

local batch, bytes, canceling, unfed, returned, open = unpack(KEYS)
local id, limit = ARGV[1], tonumber(ARGV[3])

-- Gone meanwhile, or never canceled.
if redis.call('HEXISTS', batch, 'canceled_at') == 0 then
  redis.call('ZREM', canceling, id)
  return { 0, 1, 0 }
end

local held = redis.call('HMGET', batch, 'items', 'walked', 'saved', 'failed', 'canceled')
local items = tonumber(held[1] or 0)
local from = math.max(tonumber(ARGV[2]) or 0, tonumber(held[2] or 0))
local upTo = math.min(from + limit, items)
redis.call('HSET', batch, 'walked', from)

local turned, answer = 0, { upTo, 0, 0 }
local part = redis.call('GETRANGE', bytes, from, upTo - 1)
local walked = {}
for index = from, upTo - 1 do
  local byte = string.byte(part, index - from + 1) or 0
  local attempt, state = math.max(math.floor(byte / 16), 1), byte % 16
  if state == NUMBERS.waiting then
    byte = attempt * 16 + NUMBERS.canceled
    turned = turned + 1
    redis.call('ZREM', open, id .. '-' .. index .. '-' .. attempt)
  elseif state == NUMBERS.running then
    answer[#answer + 1] = index
    answer[#answer + 1] = attempt
  end
  walked[#walked + 1] = string.char(byte)
end

if turned > 0 then
  redis.call('SETRANGE', bytes, from, table.concat(walked))
  redis.call('HINCRBY', batch, 'waiting', -turned)
  redis.call('HINCRBY', batch, 'canceled', turned)
end
if from == items then
  -- Nothing is left to feed. A claim that is given back later finds the batch canceled.
  redis.call('HSET', batch, 'cursor', items)
  redis.call('ZREM', unfed, id)
  redis.call('UNLINK', returned)
  redis.call('ZREM', canceling, id)
  answer[2] = 1
end
answer[3] = items - tonumber(held[3] or 0) - tonumber(held[4] or 0) - tonumber(held[5] or 0) - turned
return answer
