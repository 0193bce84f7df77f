-- PEEK: who holds the lock here, and for how long. Writes nothing but the place of who waits.
-- KEYS  lock, fence, marker, [queue]
-- ARGV  [place, which enters the queue, or stays in it,] marker (or nothing: look, whoever the node is)
-- Gives {0, fence, pttl, '=' .. holder, queued} held | {4, fence} free | {5, fence, queued} free, and somebody else's turn
--       | {3, marker} not the node that was admitted. queued: as TAKE says. Without a marker those who wait come last: name,
--       ticket and so on, the first sixteen.
-- include: queue
if ARGV[1] then
  local marker = redis.call('GET', KEYS[3])
  if marker ~= ARGV[#ARGV] then
    return {3, marker or ''}
  end
  local memory = string.match(marker, '^%S+ (%S+) ') -- As in TAKE.
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master\r', 1, true) or not string.find(info, 'master_replid:' .. memory .. '\r', 1, true) then
    return {3, marker}
  end
end
-- As in TAKE: a lock that nobody can take is not free, and a status should show why.
local text = redis.call('GET', KEYS[2]) or '0'
local fence = tonumber(text)
if not string.find(text, '^%d+$') or fence > 9007199254740991 then
  return redis.error_reply('REDLOCK the fence is not a number from 0 to 2^53 - 1')
end
local queued = {2}
if not ARGV[1] then
  queued = redis.pcall('ZRANGEBYSCORE', KEYS[4], '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 16)
end
local place = ARGV[2] and ARGV[1]
local waiting = place and queue()
if place then queued = {waiting.enter(KEYS[4], place)} end
local held = redis.call('GET', KEYS[1])
if not held then
  if place and waiting.others(KEYS[4], place) then return {5, fence, queued[1]} end
  return {4, fence, unpack(ARGV[1] and {} or queued)}
end
local first, rest = string.match(held, '^(%x%x%x%x%x%x%x%x)%x+(:%d+.*)$') -- As in TAKE, but with the whole of a note.
local shown = '=' .. string.gsub(string.sub(first and first .. rest or held, 1, first and 1280 or 128), '%c', '?')
return {0, fence, redis.call('PTTL', KEYS[1]), shown, unpack(queued)}
