-- OUST: take a lock from its holder, for an operator, and put the holder's token behind.
-- KEYS  lock, fence, queue
-- ARGV  value that was shown to the operator, token in it (0: none), fence_ttl_ms
-- Who is first in the queue is told to look.
-- Gives {1, fence} it was that and is gone | {0, fence} nothing was held | {2, fence} it is another one now.
-- include: queue
local call = redis.call
local number, fence_ttl = tonumber(ARGV[2]), tonumber(ARGV[3])
local held = call('GET', KEYS[1])
local text = call('GET', KEYS[2]) or '0'
local fence = string.find(text, '^%d+$') and tonumber(text)
if held and held ~= ARGV[1] then
  return {2, fence or 0}
end

-- Fence first, and no lock goes without it: an error here leaves the lock where it is. The holder can neither put the lock
-- back where it is gone (TAKE refuses to extend below the fence), nor be in front of whoever takes it next.
if number > 0 then
  if not fence or fence > 9007199254740991 then
    return redis.error_reply('REDLOCK the fence is not a number from 0 to 2^53 - 1')
  end
  if fence <= number then
    local now = call('TIME')
    if number > fence + 2048 and number > now[1] * 1000000 + now[2] + 60000000 then
      return redis.error_reply('REDLOCK the token is too far ahead of this node\'s clock')
    end
    fence = number + 1
    local left = call('PTTL', KEYS[2])
    if left == -1 or left > fence_ttl then -- As in TAKE: never shortened.
      call('SET', KEYS[2], fence, 'KEEPTTL')
    else
      call('SET', KEYS[2], fence, 'PX', ARGV[3])
    end
  end
end
if held then
  call('DEL', KEYS[1])
  queue().tell(KEYS[3], '?')
end
return {held and 1 or 0, fence or 0}
