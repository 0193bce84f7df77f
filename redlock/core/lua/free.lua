-- FREE: give back every lock of this owner, and make that final on this node.
-- KEYS  lock, fence
-- ARGV  owner, token (the largest of the try), fence_ttl_ms
-- Gives {1} it was ours and is gone | {0} nothing was held | {2} somebody else holds it.
local owner, number, fence_ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local held = redis.call('GET', KEYS[1])
local mine = held and string.sub(held, 1, #owner + 1) == owner .. ':'
if held and not mine then
  return {2} -- Raising the fence past a holder's token would stop it from topping up here.
end
if mine then
  redis.call('DEL', KEYS[1]) -- First, because it works on a node that is out of memory.
end

-- Poison: a TAKE of ours that is still on its way, on whatever connection, can no longer take this node.
local fence = tonumber(redis.call('GET', KEYS[2]) or 0)
if fence and fence <= number then
  local now = redis.call('TIME')
  now = now[1] * 1000000 + now[2]
  if number <= math.max(fence + 2048, now + 60000000) then
    local left = redis.call('PTTL', KEYS[2])
    local poison = string.format('%.0f', number + 1)
    if fence_ttl == 0 or left == -1 then
      redis.pcall('SET', KEYS[2], poison)
    else
      redis.pcall('SET', KEYS[2], poison, 'PX', string.format('%.0f', math.max(left, fence_ttl)))
    end
  end
end
return {mine and 1 or 0}
