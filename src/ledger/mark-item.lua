-- Leaves word for whoever works on an item next: `wake`, poll again soon; `cancel`, end it; `redriven`, another attempt
-- follows, since when (ms).
--
-- KEYS  1 bytes    2 item
-- ARGV  1 index    2 attempt    3 wake, cancel or redriven    4 its value
-- Returns the state's number, or -1 if that attempt isn't the item's any more.

local bytes, item = unpack(KEYS)
local raw = redis.call('GETRANGE', bytes, ARGV[1], ARGV[1])
local byte = raw == '' and 0 or string.byte(raw)
if math.max(math.floor(byte / 16), 1) ~= tonumber(ARGV[2]) then return -1 end
-- An item without a hash isn't worked on.
if redis.call('EXISTS', item) == 1 then redis.call('HSET', item, ARGV[3], ARGV[4]) end
return byte % 16
