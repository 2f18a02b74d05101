-- Leaves word for whoever works on an item next: `wake`, poll again soon; `cancel`, end it; `redriven`, another attempt
-- follows, since when (ms); `progress`, what is copied; `incomplete_since`, when an end without a whole output was seen
-- first (ms), which stays; `status` and `started_at`, what the provider's list shows of it.
--
-- KEYS  1 bytes    2 item
-- ARGV  1 index    2 attempt    3 one of these    4 its value
-- Returns the state's number, or -1 if that attempt isn't the item's any more.

local bytes, item = unpack(KEYS)
local raw = redis.call('GETRANGE', bytes, ARGV[1], ARGV[1])
local byte = raw == '' and 0 or string.byte(raw)
if math.max(math.floor(byte / 16), 1) ~= tonumber(ARGV[2]) then return -1 end
-- An item without a hash isn't worked on.
if redis.call('EXISTS', item) == 1 then
  redis.call(ARGV[3] == 'incomplete_since' and 'HSETNX' or 'HSET', item, ARGV[3], ARGV[4])
end
return byte % 16
