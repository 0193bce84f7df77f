-- MARK: write a node's marker if it still is what we read, so that two clients cannot overwrite each other's.
-- KEYS  marker
-- ARGV  expected ('' for none), head, floor (a token, or '+' and microseconds from this node's now), tail
-- Gives {1, marker} written | {0, marker} another one stands, '' for none.
local current = redis.call('GET', KEYS[1]) or ''
if current ~= ARGV[1] then
  return {0, current}
end
local floor = ARGV[3]
if string.sub(floor, 1, 1) == '+' then
  local now = redis.call('TIME')
  floor = string.format('%.0f', now[1] * 1000000 + now[2] + tonumber(string.sub(floor, 2)))
end
local marker = ARGV[2] .. ' ' .. floor .. ' ' .. ARGV[4]
redis.call('SET', KEYS[1], marker)
return {1, marker}
