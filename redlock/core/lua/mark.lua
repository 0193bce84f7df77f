-- MARK: write a node's marker if it still is what we read, so that two clients cannot overwrite each other's, and if the
-- node's memory still is the one that it names: a copy or a snapshot brings the text back, but never the memory.
-- KEYS  marker
-- ARGV  expected ('' for none), memory, head, stamp, tail
--       stamp: microseconds, as they are | "now", this node's clock | "+" and the latest other clock that is known, for a
--       blank: the latest clock of all, and this node's own, so that a command which executes twice gives two texts
-- Gives {1, marker} written | {0, marker} another one stands, '' for none | {3, marker} the memory is another one.
local current = redis.call('GET', KEYS[1]) or ''
local info = redis.call('INFO', 'replication')
if not string.find(info, 'role:master\r', 1, true) or not string.find(info, 'master_replid:' .. ARGV[2] .. '\r', 1, true) then
  return {3, current}
end
if current ~= ARGV[1] then
  return {0, current}
end
local stamp = ARGV[4]
if not tonumber(stamp) or string.sub(stamp, 1, 1) == '+' then
  local now = redis.call('TIME')
  now = now[1] * 1000000 + now[2]
  if stamp == 'now' then
    stamp = string.format('%.0f', now)
  else
    stamp = string.format('%.0f %.0f', math.max(now, tonumber(string.sub(stamp, 2))), now)
  end
end
local marker = ARGV[3] .. ' ' .. stamp .. ' ' .. ARGV[5]
redis.call('SET', KEYS[1], marker)
return {1, marker}
