-- Opens the next attempt of items whose attempt has ended, by a person's word. Those that stand otherwise by now are left.
--
-- STATES and NUMBERS are prepended, and give-to-feed.lua and open-attempt.lua.
--
-- KEYS  1 bytes    2 batch    3 returned    4 unfed    5 unfinished    6 unclear    7 failures    8 canceling    9 open
--       10 predictions bound this hour
-- ARGV  1 batch id    2 now (ms)    3 the common beginning of the items' keys
--       4 a JSON array of [index, attempt that ended, the group of failures it belongs to or false,
--         false or, where Redis may have lost that it was redriven and bought, between which moments: [ms, ms],
--         false or, where nothing is to be bought, the prediction that the next attempt carries on with,
--         and then fields of its hash, flat]
--       5 1 where a lost Redis is put right: the cancel had been over
-- Returns how many were opened, or -1 while items of a canceled batch haven't ended: they end by its cancel.

local bytes, batch, returned, unfed, unfinished, unclear, failures, canceling, open, boundNow = unpack(KEYS)
local id, nowMs = ARGV[1], ARGV[2]

local items = cjson.decode(ARGV[4])
local buys = false
for _, one in ipairs(items) do buys = buys or not one[5] end
-- Whoever buys again takes the cancel back.
if buys and redis.call('HEXISTS', batch, 'canceled_at') == 1 then
  local held = redis.call('HMGET', batch, 'items', 'saved', 'failed', 'canceled')
  local ended = tonumber(held[2] or 0) + tonumber(held[3] or 0) + tonumber(held[4] or 0)
  if ARGV[5] ~= '1' and (redis.call('ZSCORE', canceling, id) or ended < tonumber(held[1] or 0)) then return -1 end
  redis.call('HDEL', batch, 'canceled_at', 'walked')
  redis.call('ZREM', canceling, id)
end

local function leaveGroup(group)
  if redis.call('HEXISTS', failures, 'count:' .. group) == 0 then group = OTHERS end
  if redis.call('HEXISTS', failures, 'count:' .. group) == 0 then return end
  if redis.call('HINCRBY', failures, 'count:' .. group, -1) <= 0 then
    redis.call('HDEL', failures, 'count:' .. group, 'example:' .. group)
  end
end

-- The attempt that was just opened runs already: its prediction was bought before.
local function carryOn(item, index, attempt, prediction, set)
  local member = id .. '-' .. index .. '-' .. attempt
  redis.call('SETRANGE', bytes, index, string.char(attempt * 16 + NUMBERS.running))
  redis.call('HINCRBY', batch, 'waiting', -1)
  redis.call('HINCRBY', batch, 'running', 1)
  redis.call('SREM', returned, index)
  redis.call('HDEL', batch, 'again:' .. index)
  redis.call('HSET', item, 'intent_at', nowMs, 'prediction_id', prediction, unpack(set))
  redis.call('ZADD', open, nowMs, member)
  redis.call('HSET', boundNow, prediction, member)
  redis.call('EXPIRE', boundNow, BOUND_FOR_S)
end

local opened = 0
for _, one in ipairs(items) do
  local index, ended, group, span, prediction, set = unpack(one)
  local raw = redis.call('GETRANGE', bytes, index, index)
  local byte = raw == '' and 0 or string.byte(raw)
  local attempt, state = math.max(math.floor(byte / 16), 1), byte % 16
  if attempt == ended and attempt < MAX_ATTEMPT and (state == NUMBERS.failed or state == NUMBERS.canceled or state == NUMBERS.saved) then
    local keys = {
      bytes = bytes, batch = batch, item = ARGV[3] .. index, returned = returned, unfed = unfed, unfinished = unfinished,
      unclear = unclear,
    }
    openAttempt(keys, id, index, attempt, state, nowMs, span or nil)
    if prediction then carryOn(keys.item, index, attempt + 1, prediction, set) end
    if state == NUMBERS.failed and group then leaveGroup(group) end
    opened = opened + 1
  end
end
return opened
