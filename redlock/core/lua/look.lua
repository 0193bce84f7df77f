-- LOOK: what a node says of itself, and its marker. One script, so that no two servers can have answered. Writes nothing.
-- KEYS  marker
-- ARGV  [anything: whoever asks will not wait, and need not have the rights that waiting takes]
-- Gives {info, marker or '', seconds, microseconds, why no waiter can be queued and told here, or ''}.
-- Section by section, as plain INFO grows with what else the server is used for: without bound with the errors it ever gave.
local now, info = redis.call('TIME'), ''
for _, section in ipairs({'server', 'replication', 'memory', 'stats', 'persistence', 'cluster'}) do
  info = info .. redis.call('INFO', section)
end
-- The marker is no sorted set, so none of these changes it; and where there is none, XX makes none.
local mute = ''
for _, command in ipairs(ARGV[1] and {} or {
  {'PUBLISH', 'redlock:wake:', ''}, {'PUBSUB', 'NUMSUB', 'redlock:wake:'}, {'ZADD', KEYS[1], 'XX', 0, 'x'}, {'ZREM', KEYS[1], 'x'},
  {'ZSCORE', KEYS[1], 'x'}, {'ZCARD', KEYS[1]}, {'ZRANGEBYSCORE', KEYS[1], 0, 0}, {'EXISTS', KEYS[1]},
}) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err and not string.find(answer.err, 'WRONGTYPE', 1, true) then mute = answer.err end
end
return {info, redis.call('GET', KEYS[1]) or '', now[1], now[2], mute}
