-- Sets a field of a hash, if it still holds what its writer decided by.
-- KEYS: 1 the hash. ARGV: 1 the field, 2 what it held ("": nothing), 3 what it is to hold. Answers 1 if it was set.
local held = redis.call('HGET', KEYS[1], ARGV[1])
if (held or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
