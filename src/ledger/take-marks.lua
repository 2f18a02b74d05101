-- What was asked of a running item since its last poll. The wake-up is taken; the cancel stays until the item ends.
--
-- KEYS  1 item    2 batch
-- ARGV  1 the status that the poll saw, or '' if it saw none: then the last one stands    2 when it began to run, or ''
-- Returns { who woke the item or '', 1 if it is to be canceled, 1 if only the provider's list says whose its prediction is }

local item, batch = unpack(KEYS)
if redis.call('EXISTS', item) == 0 then return { '', 0, 0 } end

if ARGV[1] ~= '' then redis.call('HSET', item, 'status', ARGV[1]) end
if ARGV[2] ~= '' then redis.call('HSET', item, 'started_at', ARGV[2]) end
local woken = redis.call('HGET', item, 'wake')
if woken then redis.call('HDEL', item, 'wake') end
local cancel = redis.call('HEXISTS', item, 'cancel') + redis.call('HEXISTS', batch, 'canceled_at')
return { woken or '', cancel > 0 and 1 or 0, redis.call('HEXISTS', item, 'by_list') }
