-- TAKE: claim a larger token and take the lock, in one atomic step. Also extends, and verifies without writing.
-- KEYS  lock, fence, marker, [queue]
-- ARGV  owner, token, place, ttl_ms, fence_ttl_ms, mode ("acquire" | "extend" | "verify"), [note,] marker
--       place: as queue.lua says, which enters the queue where it cannot take the lock | "-", which respects it | nothing
-- A note is kept behind owner and token, for whoever asks who holds the lock.
-- Gives token taken | {0, fence, pttl, '=' .. holder, queued} busy | {5, fence, queued} free, and somebody else's turn
--       | {2, fence, 0, time_us} token too small, or too far ahead | {3, marker} not the node that was admitted.
--       queued: 0 the place stands in the queue | 1 the queue is full | 2 there is none, or it was not asked for.
-- include: queue
local call = redis.call
local token, place, ttl, mode = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[6]
local number, fence_ttl = tonumber(token), tonumber(ARGV[5])

-- A proxy, a flush or a changed address may have put another node behind this connection. The marker alone does not tell:
-- it is data, and comes back with a copy or a snapshot. The memory it names must be the one that this server has now, and
-- be found behind its name, for a copy shows the same id as `master_replid2`, and a replica shows its master's.
local marker = call('GET', KEYS[3])
if marker ~= ARGV[#ARGV] then
  return {3, marker or ''}
end
local memory, max_ttl, floor = string.match(marker, '^%S+ (%S+) (%d+) (%d+) ')
local info = call('INFO', 'replication')
if not string.find(info, 'role:master\r', 1, true) or not string.find(info, 'master_replid:' .. memory .. '\r', 1, true) then
  return {3, marker}
end
if ttl > tonumber(max_ttl) then
  return redis.error_reply('REDLOCK a ttl of ' .. ARGV[4] .. ' ms is above this cluster\'s max_ttl of ' .. max_ttl .. ' ms')
end

-- Digits alone, and no more than a double holds exactly: inf, nan, 0x10 and -1 are numbers to Lua, and no fences of ours.
local text = call('GET', KEYS[2]) or '0'
local fence = tonumber(text)
if not string.find(text, '^%d+$') or fence > 9007199254740991 then
  return redis.error_reply('REDLOCK the fence is not a number from 0 to 2^53 - 1')
end

local owner = ARGV[1] .. ':'
local value = owner .. token
if ARGV[8] then value = value .. ':' .. ARGV[7] end
-- Most find neither a holder nor a queue: one question for both.
local found = place ~= '-' or redis.pcall('EXISTS', KEYS[1], KEYS[4]) ~= 0
local held = found and call('GET', KEYS[1])
if held == value then
  if mode == 'extend' then -- Raise both expiries; never shorten one: the holder may rely on the longer.
    if call('PTTL', KEYS[1]) < ttl then call('PEXPIRE', KEYS[1], ARGV[4]) end
    local left = call('PTTL', KEYS[2])
    if left >= 0 and left < fence_ttl then call('PEXPIRE', KEYS[2], ARGV[5]) end
  end
  return number
end
if held and string.sub(held, 1, #owner) ~= owner then
  -- Of an owner the first characters, which tell one from another; the whole would let whoever reads it release the lock.
  local first, rest = string.match(held, '^(%x%x%x%x%x%x%x%x)%x+(:%d+.*)$')
  local shown = '=' .. string.gsub(string.sub(first and first .. rest or held, 1, 128), '%c', '?')
  return {0, fence, call('PTTL', KEYS[1]), shown, place ~= '' and queue().enter(KEYS[4], place) or 2}
end
local waiting = found and place ~= '' and redis.pcall('EXISTS', KEYS[4]) ~= 0 and queue()
if waiting and not held and waiting.others(KEYS[4], place) then
  return {5, fence, waiting.enter(KEYS[4], place)}
end

-- Refused as too small, or as too far ahead; low is what it would have to beat.
local low = fence
local refused = mode == 'verify' or (mode == 'extend' and fence > number)
-- May be equal: putting back a lock that is missing here needs only that nobody newer has been.
if mode == 'acquire' then
  low = math.max(fence, tonumber(floor))
  refused = low >= number
end
if refused or (mode == 'acquire' and number > low + 2048) then -- The clock is asked only where it can matter.
  local now = call('TIME')
  now = now[1] * 1000000 + now[2]
  if refused or number > now + 60000000 then
    return {2, low, 0, now} -- One broken client clock must not push every fence into the future.
  end
end

-- Fence first: an abort between the two writes leaves a raised fence, which is harmless, never a lock without one.
-- Its expiry is never shortened: another client may keep its fences for longer. One that is no more than a thousandth short is
-- left alone, which costs half of writing it.
local left = call('PTTL', KEYS[2])
if left == -1 or (fence_ttl > 0 and left > fence_ttl * 0.999) then
  call('SET', KEYS[2], token, 'KEEPTTL')
elseif fence_ttl == 0 then
  call('SET', KEYS[2], token)
else
  call('SET', KEYS[2], token, 'PX', ARGV[5])
end
call('SET', KEYS[1], value, 'PX', ARGV[4])
if waiting then waiting.leave(KEYS[4], waiting.name(place) or '') end
return number
