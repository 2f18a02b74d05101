-- Calls items unclear that may have been bought on a Redis that was lost since. Doing so again changes nothing.
--
-- STATES and NUMBERS are prepended, and redis-identity.lua.
--
-- KEYS  1 bytes    2 batch    3 unclear    4 claimed    5 open    6 returned    7 account    8 epoch
-- ARGV  1 batch id    2 the common beginning of the items' keys    3, 4 between which moments (ms)
--       5 rows below it were given out, as the bucket says    6 the row that the feed is to go on with    7… indexes
-- Returns how many are unclear for it: who has a prediction, or has ended, is left as it is. Or -1, and nothing is changed:
-- the account is open on this Redis by now, and who is claimed on it wasn't lost.

local bytes, batch, unclear, claimed, open, returned, account, epoch = unpack(KEYS)
local id, itemKeys, from, to, fed, cursor = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

if redis.call('HGET', account, 'opened_on') == redisIdentity(epoch) then return -1 end
local stands = redis.call('HMGET', batch, 'cursor', 'noted')
if tonumber(stands[1] or 0) < tonumber(cursor) then redis.call('HSET', batch, 'cursor', cursor) end
if tonumber(stands[2] or 0) < tonumber(fed) then redis.call('HSET', batch, 'noted', fed) end

local doubted = 0
for at = 7, #ARGV do
  local index = ARGV[at]
  local raw = redis.call('GETRANGE', bytes, index, index)
  local byte = raw == '' and 0 or string.byte(raw)
  local attempt, state = math.max(math.floor(byte / 16), 1), byte % 16
  if state == NUMBERS.waiting or state == NUMBERS.claimed or state == NUMBERS.unclear then
    local item, member = itemKeys .. index, id .. '-' .. index .. '-' .. attempt
    -- A claim that Redis still knows may have been given back and made again since: under a nonce of its own nobody gives
    -- it back any more. Its sender, if that lives, may yet bind (by `adopt`).
    local held = redis.call('HMGET', item, 'intent_from', 'intent_at')
    redis.call('HSET', item, 'nonce', 'lost-' .. to, 'intent_from', held[1] or held[2] or from, 'intent_at', to)
    if state ~= NUMBERS.unclear then
      redis.call('SETRANGE', bytes, index, string.char(attempt * 16 + NUMBERS.unclear))
      redis.call('HINCRBY', batch, STATES[state], -1)
      redis.call('HINCRBY', batch, 'unclear', 1)
    end
    redis.call('ZREM', claimed, member)
    redis.call('ZREM', open, member)
    redis.call('SREM', returned, index)
    redis.call('HDEL', batch, 'again:' .. index)
    redis.call('ZADD', unclear, to, member)
    doubted = doubted + 1
  end
end
return doubted
