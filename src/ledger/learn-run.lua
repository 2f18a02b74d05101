-- Counts one run of a model that took so long. A statistic: the client's repetition counts it twice, a crash not at all.
--
-- KEYS  1 runs
-- ARGV  1 bucket    2 model    3 fields that the hash may have    4 seconds it is kept
-- What finds it full counts under no name: it still tells of the account.

local runs = KEYS[1]
local field = ARGV[1] .. ' ' .. ARGV[2]
if redis.call('HEXISTS', runs, field) == 0 and redis.call('HLEN', runs) >= tonumber(ARGV[3]) then field = ARGV[1] .. ' ' end
redis.call('HINCRBY', runs, field, 1)
redis.call('EXPIRE', runs, ARGV[4])
return 1
