-- Opens the next attempt of an item whose attempt has ended, or ends now: it waits to be bought. Needs give-to-feed.lua.
--
-- `keys`: bytes, batch, returned, unfed, unfinished, unclear, item.
-- `span`: set where Redis may have lost that this very attempt was opened and bought: between which moments. It is
--         unclear then, and evidence decides.

local function openAttempt(keys, id, index, ended, state, nowMs, span)
  local attempt = ended + 1
  local to = span and NUMBERS.unclear or NUMBERS.waiting
  redis.call('SETRANGE', keys.bytes, index, string.char(attempt * 16 + to))
  redis.call('HINCRBY', keys.batch, STATES[state], -1)
  redis.call('HINCRBY', keys.batch, STATES[to], 1)
  redis.call('HDEL', keys.batch, 'finished_at')
  -- Whoever finishes the batch at this moment is to know (finish-batch.lua).
  redis.call('HINCRBY', keys.batch, 'openings', 1)
  redis.call('ZADD', keys.unfinished, redis.call('HGET', keys.batch, 'opened_at') or nowMs, id)
  if span then
    redis.call('HSET', keys.item, 'nonce', 'lost-' .. span[2], 'intent_from', span[1], 'intent_at', span[2])
    redis.call('ZADD', keys.unclear, span[2], id .. '-' .. index .. '-' .. attempt)
  else
    giveToFeed(keys, id, index, nowMs)
  end
  return to
end
