-- LEAVE: give up a place in the queue of a lock. Where the lock is free, the next one is told to look: it may be held elsewhere.
-- KEYS  lock, queue
-- ARGV  place (its name)
-- Gives 1.
-- include: queue
local waiting = queue()
waiting.leave(KEYS[2], ARGV[1])
if redis.pcall('EXISTS', KEYS[1]) == 0 then waiting.tell(KEYS[2], '?') end
return 1
