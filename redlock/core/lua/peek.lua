-- PEEK: who holds the lock here, and for how long. Writes nothing.
-- KEYS  lock, fence, marker
-- ARGV  marker (or nothing: look, whoever the node is)
-- Gives {0, fence, pttl, '=' .. holder} held | {4, fence} free | {3, marker} not the node that was admitted.
if ARGV[1] then
  local marker = redis.call('GET', KEYS[3])
  if marker ~= ARGV[1] then
    return {3, marker or ''}
  end
end
local fence = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
local held = redis.call('GET', KEYS[1])
if not held then
  return {4, fence}
end
local shown = '=' .. string.gsub(string.sub(held, 1, 128), '%c', '?')
return {0, fence, redis.call('PTTL', KEYS[1]), shown}
