-- TAKE: claim a larger token and take the lock, in one atomic step. Also extends, and verifies without writing.
-- KEYS  lock, fence, marker
-- ARGV  owner, token, ttl_ms, fence_ttl_ms, mode ("acquire" | "extend" | "verify"), marker
-- Gives {1, token, 0} taken | {0, fence, pttl, '=' .. holder} busy | {2, fence, 0, time_us} token too small, or too far ahead
--       | {3, marker} not the node that was admitted.
local owner, token, ttl, fence_ttl, mode = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local number = tonumber(token)

-- A proxy, a flush or a changed address may have put another node behind this connection.
local marker = redis.call('GET', KEYS[3])
if marker ~= ARGV[6] then
  return {3, marker or ''}
end
local max_ttl, floor = string.match(marker, '^%S+ %S+ %d+ (%d+) %d (%d+) ')
if ttl > tonumber(max_ttl) then
  return redis.error_reply('REDLOCK a ttl of ' .. ARGV[3] .. ' ms is above this cluster\'s max_ttl of ' .. max_ttl .. ' ms')
end

local fence = tonumber(redis.call('GET', KEYS[2]) or 0)
if not fence then
  return redis.error_reply('REDLOCK the fence is not a number')
end
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]

local held = redis.call('GET', KEYS[1])
if held == owner .. ':' .. token then
  if mode == 'extend' then -- Raise both expiries; never shorten one: the holder may rely on the longer.
    local left = redis.call('PTTL', KEYS[1])
    if left < ttl then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
    left = redis.call('PTTL', KEYS[2])
    if fence_ttl > 0 and left >= 0 and left < fence_ttl then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
  end
  return {1, number, 0}
end
if held and string.sub(held, 1, #owner + 1) ~= owner .. ':' then
  local shown = '=' .. string.gsub(string.sub(held, 1, 128), '%c', '?')
  return {0, fence, redis.call('PTTL', KEYS[1]), shown}
end
if mode == 'verify' then
  return {2, fence, 0, now}
end

if mode == 'extend' then
  if fence > number then -- May be equal: putting back a lock that is missing here needs only that nobody newer has been.
    return {2, fence, 0, now}
  end
else
  local low = math.max(fence, tonumber(floor))
  if low >= number then
    return {2, low, 0, now}
  end
  if number > math.max(low + 2048, now + 60000000) then
    return {2, low, 0, now} -- One broken client clock must not push every fence into the future.
  end
end

-- Fence first: an abort between the two writes leaves a raised fence, which is harmless, never a lock without one.
local left = redis.call('PTTL', KEYS[2])
if fence_ttl == 0 or left == -1 then
  redis.call('SET', KEYS[2], token)
else
  redis.call('SET', KEYS[2], token, 'PX', string.format('%.0f', math.max(left, fence_ttl)))
end
redis.call('SET', KEYS[1], owner .. ':' .. token, 'PX', ARGV[3])
return {1, number, 0}
