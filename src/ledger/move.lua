-- The one transition: moves an item from one state of an attempt to another, and everything that must change with it.
--
-- STATES and NUMBERS (0 = 'waiting', … and back) are prepended from src/core/item.ts, which also decides which steps are
-- legal; and redis-identity.lua, give-to-feed.lua and open-attempt.lua.
--
-- KEYS  1 bytes    2 batch    3 item    4 open    5 unclear    6 account    7 returned    8 unfed    9 failures    10 latest
--       11 claimed    12 epoch    13 unfinished    14 unsaved
--       15… predictions bound this hour, and in each of the hours before that are looked at
-- ARGV  1 a JSON object:
--         index, attempt, member (the errand's id), nowMs
--         from      state numbers this step may start from
--         to        the state number it leads to
--         nonce     optional: only if the item's intent carries this nonce (for a claim: the nonce to write)
--         claim     true for the step that writes the intent
--         believes  true for a step that is right only if the item surely wasn't bought
--         prediction  optional: the id to bind
--         reuse     true: an earlier attempt of this very item may hold that prediction
--         handBack  true: nobody holds the errand any more, the feed is to give it out again
--         set       fields for the item's hash, flat: name, value, name, value
--         maxUnclear  with a claim: so many unclear items of the account turn it away
--         sums      fields to add to the batch's sums when the attempt ends, flat: name, whole number as a string
--         failure   optional, for the step that ends the attempt: the group of failures that this one belongs to
--         hasFiles  true for the step that ends the attempt with files in the bucket
--         retry     optional, for the step that ends the attempt: the provider itself failed, and the batch may have said
--                   that such an attempt is followed by another; when this one was recorded (ms)
-- Returns { answer, state's number, the item's prediction id or '', items of the batch that haven't ended,
--           when the item's intent was written (ms) or '', who woke the item since its last poll or '' }
--   moved    done, now or by an earlier send of this very script
--   retried  the attempt has ended, and the item's next one is open
--   already  this attempt stands in `to` already
--   paused   a claim that a pause of the account or of the batch turned away, or too many unclear items; the row went
--            back to the feed
--   unopened this isn't the Redis that the account was opened on, and may have lost claims: who waits may be bought
--   taken    a prediction to bind is another attempt's already: nothing was changed
--   canceled a claim, or a claim given back, of an item that is to be canceled, alone or with its batch: it is canceled
--            now, unbought
--   lost     another attempt, another state, or another's nonce: nothing was changed

local bytes, batch, item, open, unclear, account, returned, unfed, failures, latest, claimed, epoch, unfinished, unsaved,
  boundNow = unpack(KEYS)
local FIRST_BOUND = 15
local m = cjson.decode(ARGV[1])
local id = string.match(m.member, '^[^-]+')

local raw = redis.call('GETRANGE', bytes, m.index, m.index)
local byte = raw == '' and 0 or string.byte(raw)
local attempt, state = math.max(math.floor(byte / 16), 1), byte % 16

local function answer(word, now)
  local counts = redis.call('HMGET', batch, 'items', 'saved', 'failed', 'canceled')
  local left = tonumber(counts[1] or 0) - tonumber(counts[2] or 0) - tonumber(counts[3] or 0) - tonumber(counts[4] or 0)
  local held = redis.call('HMGET', item, 'prediction_id', 'intent_at', 'wake')
  return { word, now, held[1] or '', left, held[2] or '', held[3] or '' }
end

local keys = {
  bytes = bytes, batch = batch, item = item, returned = returned, unfed = unfed, unfinished = unfinished, unclear = unclear,
}

local function handBack()
  redis.call('ZREM', open, m.member)
  giveToFeed(keys, id, m.index, m.nowMs)
end

local function takeFromFeed()
  if redis.call('SREM', returned, m.index) == 0 or redis.call('SCARD', returned) > 0 then return end
  local held = redis.call('HMGET', batch, 'cursor', 'items')
  if tonumber(held[1] or 0) >= tonumber(held[2] or 0) then redis.call('ZREM', unfed, id) end
end

local function setState(number)
  redis.call('SETRANGE', bytes, m.index, string.char(attempt * 16 + number))
  redis.call('HINCRBY', batch, STATES[state], -1)
  redis.call('HINCRBY', batch, STATES[number], 1)
  if STATES[state] == 'unclear' then redis.call('ZREM', unclear, m.member) end
  if STATES[state] == 'claimed' then redis.call('ZREM', claimed, m.member) end
  if STATES[state] == 'copying' then redis.call('ZREM', unsaved, m.member) end
end

-- Whose a prediction is; false: nobody's.
local function holderOf(prediction)
  for at = FIRST_BOUND, #KEYS do
    local holder = redis.call('HGET', KEYS[at], prediction)
    if holder then return holder end
  end
  return false
end

local function isSameItem(holder)
  return m.reuse and string.match(holder, '^(.*)-%d+$') == id .. '-' .. m.index
end

local function close()
  redis.call('DEL', item)
  redis.call('ZREM', open, m.member)
  takeFromFeed()
end

local function cancelUnbought()
  setState(NUMBERS.canceled)
  close()
  return answer('canceled', NUMBERS.canceled)
end

-- Whether another attempt follows: a person had redriven this one, before Redis lost that it had ended; or the batch's
-- people said so of failures of the provider's own.
local function mayRetry()
  if redis.call('HEXISTS', item, 'redriven') == 1 then return attempt < MAX_ATTEMPT end
  if not m.retry or attempt >= MAX_ATTEMPT then return false end
  if redis.call('HEXISTS', batch, 'canceled_at') == 1 or redis.call('HEXISTS', item, 'cancel') == 1 then return false end
  return tonumber(redis.call('HGET', batch, 'retry_failed') or 0) >= attempt
end

-- Between which moments the next attempt may have been bought already: since this one was recorded, and until Redis lost
-- writes. Where the account isn't open on this Redis, nobody has looked yet. Nil: nothing was lost since.
local function lostSince(recordedMs)
  if redis.call('HGET', account, 'opened_on') ~= redisIdentity(epoch) then return { recordedMs, m.nowMs } end
  local lostTo = redis.call('HGET', account, 'lost_to')
  -- The two were told by the clocks of two workers.
  if not lostTo or tonumber(recordedMs) > tonumber(lostTo) + SKEW_MS then return nil end
  return { tonumber(recordedMs) < tonumber(lostTo) and recordedMs or lostTo, lostTo }
end

if attempt ~= m.attempt then return answer('lost', state) end

local nonce = redis.call('HGET', item, 'nonce')
if m.claim and state == m.to and nonce == m.nonce then return answer('moved', state) end
if m.nonce and not m.claim and nonce ~= m.nonce then return answer('lost', state) end

local legal = false
for _, from in ipairs(m.from) do legal = legal or from == state end

if not legal then
  if state ~= m.to or m.claim then return answer('lost', state) end
  if m.prediction and redis.call('HGET', item, 'prediction_id') ~= m.prediction then return answer('lost', state) end
  return answer('already', state)
end

if m.believes then
  local openedOn = redis.call('HGET', account, 'opened_on')
  -- On data that no account was ever opened on nothing was bought either: what waits there may be ended, but not claimed.
  if openedOn ~= redisIdentity(epoch) and (m.claim or openedOn) then return answer('unopened', state) end
end

-- Emptied, and not yet put right: a step would leave half a batch behind.
if redis.call('HEXISTS', batch, 'opened_at') == 0 then
  return redis.error_reply('NOBATCH Redis does not know batch ' .. id .. '; it may have lost it, and is put right by the next feed')
end

if m.claim then
  if redis.call('HEXISTS', batch, 'canceled_at') == 1 then return cancelUnbought() end
  local crowded = redis.call('ZCARD', unclear) >= m.maxUnclear
  if crowded or redis.call('HEXISTS', account, 'paused') == 1 or redis.call('HEXISTS', batch, 'paused') == 1 then
    handBack()
    return answer('paused', state)
  end
end

if m.prediction then
  local holder = holderOf(m.prediction)
  if holder and holder ~= m.member and not isSameItem(holder) then return answer('taken', state) end
end

local to = STATES[m.to]
if to == 'waiting' and (redis.call('HEXISTS', item, 'cancel') == 1 or redis.call('HEXISTS', batch, 'canceled_at') == 1) then
  return cancelUnbought()
end

local ends = to == 'saved' or to == 'failed' or to == 'canceled'
local retries = ends and mayRetry()
if not retries then setState(m.to) end

if to == 'waiting' then
  redis.call('DEL', item)
  -- An unclear item's errand has ended.
  if m.handBack or STATES[state] == 'unclear' then handBack() else redis.call('ZADD', open, m.nowMs, m.member) end
elseif ends then
  -- Read before the item's hash goes.
  local recordedMs = retries and (redis.call('HGET', item, 'redriven') or m.retry)
  close()
  for at = 1, #(m.sums or {}), 2 do redis.call('HINCRBY', batch, m.sums[at], m.sums[at + 1]) end
  if retries then
    return answer('retried', openAttempt(keys, id, m.index, attempt, state, m.nowMs, lostSince(recordedMs)))
  end
  if m.hasFiles then
    redis.call('LPUSH', latest, m.index)
    redis.call('LTRIM', latest, 0, MAX_LATEST - 1)
  end
  if m.failure then
    -- Each group has two fields, and the last place is the others'.
    local full = redis.call('HLEN', failures) >= 2 * (MAX_GROUPS - 1)
    local group = full and redis.call('HEXISTS', failures, 'count:' .. m.failure) == 0 and OTHERS or m.failure
    redis.call('HINCRBY', failures, 'count:' .. group, 1)
    redis.call('HSETNX', failures, 'example:' .. group, m.index)
  end
else
  if m.claim then
    redis.call('HSET', item, 'nonce', m.nonce, 'intent_at', m.nowMs)
    redis.call('HSET', account, 'last_claim', m.nowMs)
    redis.call('ZADD', claimed, m.nowMs, m.member)
  end
  if STATES[state] == 'waiting' and not m.claim then takeFromFeed() end
  if m.prediction then
    redis.call('HSET', item, 'prediction_id', m.prediction)
    redis.call('HSET', boundNow, m.prediction, m.member)
    redis.call('EXPIRE', boundNow, BOUND_FOR_S)
  end
  if m.set and #m.set > 0 then redis.call('HSET', item, unpack(m.set)) end
  if to == 'unclear' then
    redis.call('ZREM', open, m.member)
    redis.call('ZADD', unclear, redis.call('HGET', item, 'intent_at') or m.nowMs, m.member)
  else
    redis.call('ZADD', open, m.nowMs, m.member)
  end
end

return answer('moved', m.to)
