-- FREE: give back every lock of this owner, and make that final on this node.
-- KEYS  lock, fence, [queue]
-- ARGV  owner, token (the largest of the try), place, fence_ttl_ms, [keep_ms: how long it is kept from others still]
--       place: a name, which leaves the queue, and who is first is told that the lock is free | "-": the same for one who
--       has none | "?": of a try that failed, who is first is told to look | nothing: there is no queue
-- Gives 1 it was ours and is gone | 0 nothing was held | 2 somebody else holds it.
-- include: queue
local call = redis.call
local number, place, fence_ttl = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local held, keep = call('GET', KEYS[1]), ARGV[5]
local waiting = place ~= '' and redis.pcall('EXISTS', KEYS[3]) ~= 0 and queue()
if held then
  local owner = ARGV[1] .. ':'
  if string.sub(held, 1, #owner) ~= owner then
    if waiting then waiting.leave(KEYS[3], place) end
    return 2 -- Raising the fence past a holder's token would stop it from topping up here.
  end
  if not keep then
    call('DEL', KEYS[1]) -- First, because it works on a node that is out of memory.
  else
    local left = call('PTTL', KEYS[1])
    if left < 0 or left > tonumber(keep) then -- Never longer: this may be a release that is brought once more.
      call('PEXPIRE', KEYS[1], keep)
    end
  end
end
if waiting then
  waiting.leave(KEYS[3], place)
  if not (held and keep) then waiting.tell(KEYS[3], place == '?' and '?' or '') end
end

-- Poison: a TAKE of ours that is still on its way, on whatever connection, can no longer take this node.
-- A fence that is no number (see TAKE) is left as it stands: no TAKE passes it, ours included.
local text = call('GET', KEYS[2]) or '0'
local fence = string.find(text, '^%d+$') and tonumber(text)
if fence and fence <= number then
  local plausible = number <= fence + 2048
  if not plausible then
    local now = call('TIME')
    plausible = number <= now[1] * 1000000 + now[2] + 60000000
  end
  if plausible then
    local left = call('PTTL', KEYS[2])
    if left == -1 or (fence_ttl > 0 and left > fence_ttl * 0.999) then -- As in TAKE.
      redis.pcall('SET', KEYS[2], number + 1, 'KEEPTTL')
    elseif fence_ttl == 0 then
      redis.pcall('SET', KEYS[2], number + 1)
    else
      redis.pcall('SET', KEYS[2], number + 1, 'PX', ARGV[4])
    end
  end
end
return held and 1 or 0
