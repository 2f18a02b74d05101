-- Which Redis this is: its process and its data. Another process may have lost the last writes, other data all of them.
--
-- Given to scripts that compare it, and by itself (read-identity.lua).

local function redisIdentity(epochKey)
  local process = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  return process .. '/' .. (redis.call('GET', epochKey) or '')
end
