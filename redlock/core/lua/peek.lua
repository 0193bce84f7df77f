-- PEEK: who holds the lock here, and for how long. Writes nothing.
-- KEYS  lock, fence, marker
-- ARGV  marker (or nothing: look, whoever the node is)
-- Gives {0, fence, pttl, '=' .. holder} held | {4, fence} free | {3, marker} not the node that was admitted.
if ARGV[1] then
  local marker = redis.call('GET', KEYS[3])
  if marker ~= ARGV[1] then
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
local held = redis.call('GET', KEYS[1])
if not held then
  return {4, fence}
end
local first, rest = string.match(held, '^(%x%x%x%x%x%x%x%x)%x+(:%d+.*)$') -- As in TAKE, but with the whole of a note.
local shown = '=' .. string.gsub(string.sub(first and first .. rest or held, 1, first and 1280 or 128), '%c', '?')
return {0, fence, redis.call('PTTL', KEYS[1]), shown}
