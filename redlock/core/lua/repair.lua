-- REPAIR: give a lock without an expiry one, so that a client that died between SETNX and EXPIRE blocks nobody for ever.
-- KEYS  lock
-- ARGV  ttl_ms
-- Gives 1 it has one now | 0 there was nothing to repair.
if redis.call('PTTL', KEYS[1]) ~= -1 then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
