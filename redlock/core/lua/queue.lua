-- The queue of a lock, which other scripts include, as one function that makes the others: where nobody waits it is not called,
-- and costs nothing. The queue says whose turn it is and never who holds the lock: all it can do is
-- to refuse. By pcall throughout: without the rights, or in front of somebody else's key, there is no queue, and all poll.
-- One sorted set: for each place its name with its ticket, and its lease: '!' .. name with minus the instant (this node's
-- clock, in ms) at which that is over, or '~' .. name for one that hears no messages. Tickets are the same on all nodes, so
-- all agree who is first. A name begins with the id of its coordinator, up to a dot, where wake-ups are heard.
local function queue()
  local LEASE, PLACES_MAX, DROPS_MAX = 1000, 1024, 128

  local function channel(name)
    return 'redlock:wake:' .. string.match(name, '^[^.]*')
  end

  local function leave(queue, name)
    return type(redis.pcall('ZREM', queue, name, '!' .. name, '~' .. name)) == 'number'
  end

  -- "<ticket> <name>" of one who hears messages, "<ticket>~<name>" of one who does not.
  local function read_place(place)
    local ticket, hears, name = string.match(place, '^(%d+)([ ~])(.+)$')
    return name, tonumber(ticket), hears == '~'
  end

  -- The first place whose lease is not over, its ticket, and whether it is deaf. The node's clock may have stepped: no lease is
  -- longer than LEASE.
  local function first(queue)
    local now
    for _ = 1, PLACES_MAX do
      local entry = redis.pcall('ZRANGEBYSCORE', queue, '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      local name = entry[1]
      if not name then return nil end
      if not now then
        now = redis.call('TIME')
        now = now[1] * 1000 + now[2] / 1000
      end
      local lease, deaf = redis.pcall('ZSCORE', queue, '!' .. name), false
      if not lease then
        lease, deaf = redis.pcall('ZSCORE', queue, '~' .. name), true
      end
      local left = type(lease) == 'string' and -tonumber(lease) - now or 0
      if left > 0 and left <= LEASE then return name, tonumber(entry[2]), deaf end
      if not leave(queue, name) then return nil end
    end
  end

  -- Enter, or keep a place. 0 it stands | 1 the queue is full | 2 there is none.
  local function enter(queue, place)
    local name, ticket, deaf = read_place(place)
    if not name then return 2 end
    local known = redis.pcall('ZSCORE', queue, name)
    if type(known) == 'table' then return 2 end
    if not known then
      local entries = redis.pcall('ZCARD', queue)
      if type(entries) ~= 'number' then return 2 end
      if entries >= 2 * PLACES_MAX then return 1 end
    end
    local now = redis.call('TIME')
    now = now[1] * 1000 + math.floor(now[2] / 1000)
    local over = string.format('-%.0f', now + LEASE)
    local lease, other = '!' .. name, '~' .. name
    if deaf then lease, other = other, lease end
    local added = redis.pcall('ZADD', queue, string.format('%.0f', ticket), name, over, lease)
    if type(added) ~= 'number' then return 2 end
    if known then
      redis.pcall('ZREM', queue, other)
      -- While the lock is held nobody asks whose turn it is, and so nobody else drops those who died.
      local dead = redis.pcall('ZRANGEBYSCORE', queue, string.format('-%.0f', now), '(0', 'LIMIT', 0, DROPS_MAX)
      for _, entry in ipairs(dead) do leave(queue, string.sub(entry, 2)) end
    end
    redis.pcall('PEXPIRE', queue, LEASE)
    return 0
  end

  -- Whether it is somebody else's turn, and whether nobody waits. One whose coordinator has left this node is dropped.
  local function others(queue, place)
    local name, ticket = read_place(place)
    for _ = 1, PLACES_MAX do
      local head, score, deaf = first(queue)
      if not head then return false, true end
      if head == name or (name and (ticket < score or (ticket == score and name < head))) then return false end
      if deaf then return true end
      local heard = redis.pcall('PUBSUB', 'NUMSUB', channel(head))
      if heard[2] ~= 0 or not leave(queue, head) then return true end
    end
    return true
  end

  -- Tell the first that the lock is free, or, with the mark '?', that it may be: a look is worth it. Those whose coordinator
  -- has left this node are dropped.
  local function tell(queue, mark)
    for _ = 1, PLACES_MAX do
      local head, _, deaf = first(queue)
      if not head then return end
      local heard = redis.pcall('PUBLISH', channel(head), mark .. head)
      if deaf or heard ~= 0 or not leave(queue, head) then return end
    end
  end
  return {enter = enter, leave = leave, name = read_place, others = others, tell = tell}
end
