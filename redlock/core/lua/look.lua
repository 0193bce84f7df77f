-- LOOK: what a node says of itself, and its marker. One script, so that no two servers can have answered. Writes nothing.
-- KEYS  marker
-- Gives {info, marker or '', seconds, microseconds}.
local now = redis.call('TIME')
return {redis.call('INFO'), redis.call('GET', KEYS[1]) or '', now[1], now[2]}
