-- LOOK: what a node says of itself, and its marker. One script, so that no two servers can have answered. Writes nothing.
-- KEYS  marker
-- Gives {info, marker or '', seconds, microseconds}.
-- Section by section, as plain INFO grows with what else the server is used for: without bound with the errors it ever gave.
local now, info = redis.call('TIME'), ''
for _, section in ipairs({'server', 'replication', 'memory', 'stats', 'persistence', 'cluster'}) do
  info = info .. redis.call('INFO', section)
end
return {info, redis.call('GET', KEYS[1]) or '', now[1], now[2]}
