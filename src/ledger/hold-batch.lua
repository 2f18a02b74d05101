-- Pauses a batch, lets it go on, or marks it as canceled. Doing so again changes nothing.
--
-- KEYS  1 batch    2 unfed    3 canceling    4 returned
-- ARGV  1 batch id    2 pause, resume or cancel    3 why (pause), or the time in ms (cancel)
-- Returns 1 if this call did it, 0 if it stood so already, -1 if there is no such batch or it has ended.

local batch, unfed, canceling, returned = unpack(KEYS)
local id, act, value = ARGV[1], ARGV[2], ARGV[3]

if redis.call('EXISTS', batch) == 0 or redis.call('HEXISTS', batch, 'finished_at') == 1 then return -1 end

if act == 'cancel' then
  if redis.call('HSETNX', batch, 'canceled_at', value) == 0 then return 0 end
  redis.call('HDEL', batch, 'paused')
  redis.call('ZREM', unfed, id)
  redis.call('ZADD', canceling, value, id)
  return 1
end

if redis.call('HEXISTS', batch, 'canceled_at') == 1 then return -1 end

if act == 'pause' then
  if redis.call('HSETNX', batch, 'paused', value) == 0 then return 0 end
  redis.call('ZREM', unfed, id)
  return 1
end

if redis.call('HDEL', batch, 'paused') == 0 then return 0 end
local held = redis.call('HMGET', batch, 'items', 'cursor', 'opened_at')
if tonumber(held[2]) < tonumber(held[1]) or redis.call('SCARD', returned) > 0 then
  redis.call('ZADD', unfed, held[3], id)
end
return 1
