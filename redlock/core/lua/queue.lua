-- The queue of a lock, which other scripts include. It says whose turn it is and never who holds the lock: all it can do is
-- to refuse. By pcall throughout: without the rights, or in front of somebody else's key, there is no queue, and all poll.
-- One sorted set: for each place its name with its ticket, and '!' .. name with minus the instant (this node's clock, in ms)
-- at which its lease is over. Tickets are the same on all nodes, so all agree who is first. A name begins with the id of its
-- coordinator, up to a dot, where wake-ups are heard.
local LEASE, PLACES_MAX = 1000, 1024

local function channel(name)
  return 'redlock:wake:' .. string.match(name, '^[^.]*')
end

local function leave(queue, name)
  return type(redis.pcall('ZREM', queue, name, '!' .. name)) == 'number'
end

-- The first place whose lease is not over, and its ticket. The node's clock may have stepped: no lease is longer than LEASE.
local function first(queue)
  local now
  while true do
    local entry = redis.pcall('ZRANGEBYSCORE', queue, '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    local name = entry[1]
    if not name then return nil end
    if not now then
      now = redis.call('TIME')
      now = now[1] * 1000 + now[2] / 1000
    end
    local lease = redis.pcall('ZSCORE', queue, '!' .. name)
    local left = type(lease) == 'string' and -tonumber(lease) - now or 0
    if left > 0 and left <= LEASE then return name, tonumber(entry[2]) end
    if not leave(queue, name) then return nil end
  end
end

-- Enter, or keep a place. 0 it stands | 1 the queue is full | 2 there is none.
local function enter(queue, name, ticket)
  local lease = redis.pcall('ZSCORE', queue, '!' .. name)
  if type(lease) == 'table' then return 2 end
  if not lease then
    local entries = redis.pcall('ZCARD', queue)
    if type(entries) ~= 'number' then return 2 end
    if entries >= 2 * PLACES_MAX then return 1 end
  end
  local now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  local added = redis.pcall('ZADD', queue, ticket, name, string.format('%.0f', -now - LEASE), '!' .. name)
  if type(added) ~= 'number' then return 2 end
  redis.pcall('PEXPIRE', queue, LEASE)
  return 0
end

-- Whether it is somebody else's turn, and whether nobody waits. A place whose coordinator hears nothing on this node is dropped.
local function others(queue, name, ticket)
  while true do
    local head, score = first(queue)
    if not head then return false, true end
    if head == name or (ticket and (ticket < score or (ticket == score and name < head))) then return false end
    local heard = redis.pcall('PUBSUB', 'NUMSUB', channel(head))
    if heard[2] ~= 0 or not leave(queue, head) then return true end
  end
end

-- Tell the first that the lock is free; those who hear nothing are gone.
local function tell(queue)
  while true do
    local head = first(queue)
    if not head then return end
    local heard = redis.pcall('PUBLISH', channel(head), head)
    if heard ~= 0 or not leave(queue, head) then return end
  end
end
