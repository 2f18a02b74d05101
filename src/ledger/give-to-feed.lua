-- Leaves an item's row to the feed: nobody holds its errand.
--
-- `keys`: returned, batch, unfed.

local function giveToFeed(keys, id, index, nowMs)
  -- It stood there: the feed that gave it out hasn't noted that yet, and is told not to (advance.lua).
  if redis.call('SADD', keys.returned, index) == 0 then redis.call('HSET', keys.batch, 'again:' .. index, 1) end
  -- A paused batch is fed again when it is resumed.
  if redis.call('HEXISTS', keys.batch, 'paused') == 0 then
    redis.call('ZADD', keys.unfed, redis.call('HGET', keys.batch, 'opened_at') or nowMs, id)
  end
end
