-- Which Redis this is. Data without a mark gets one, once.
--
-- KEYS  1 epoch
-- ARGV  1 a random mark
-- Returns the identity.

redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redisIdentity(KEYS[1])
