-- Notes when the files of an attempt that is being copied expire. One that isn't any more isn't noted: whoever took it from
-- there (move.lua) has taken the note with it.
--
-- KEYS  1 bytes    2 unsaved
-- ARGV  1 index    2 attempt    3 the errand's id    4 the expiry (ms)

local raw = redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[1])
if raw == '' or string.byte(raw) ~= ARGV[2] * 16 + NUMBERS.copying then return 0 end
return redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
