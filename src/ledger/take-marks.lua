-- What was asked of a running item since its last poll. The wake-up is taken; the cancel stays until the item ends.
-- A late poll of an earlier attempt takes no wake-up, and notes nothing.
--
-- KEYS  1 bytes    2 item    3 batch
-- ARGV  1 index    2 attempt    3 the status that the poll saw, or '' if it saw none: then the last one stands
--       4 when it began to run, or ''
-- Returns { who woke the item or '', 1 if it is to be canceled, 1 if only the provider's list says whose its prediction is }

local bytes, item, batch = unpack(KEYS)
if redis.call('EXISTS', item) == 0 then return { '', 0, 0 } end

local raw = redis.call('GETRANGE', bytes, ARGV[1], ARGV[1])
local byte = raw == '' and 0 or string.byte(raw)
local woken = false
if math.max(math.floor(byte / 16), 1) == tonumber(ARGV[2]) then
  if ARGV[3] ~= '' then redis.call('HSET', item, 'status', ARGV[3]) end
  if ARGV[4] ~= '' then redis.call('HSET', item, 'started_at', ARGV[4]) end
  woken = redis.call('HGET', item, 'wake')
  if woken then redis.call('HDEL', item, 'wake') end
end
local cancel = redis.call('HEXISTS', item, 'cancel') + redis.call('HEXISTS', batch, 'canceled_at')
return { woken or '', cancel > 0 and 1 or 0, redis.call('HEXISTS', item, 'by_list') }
