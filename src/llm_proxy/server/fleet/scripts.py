"""What runs inside Redis: each script touches one key, whose name is `PREFIX` and a limit's key.

Numbers are Lua's doubles: microseconds of this century fit exactly, with room for quarters. They
are written by `%.0f` and `%.17g`, because Lua itself would cut them to 14 digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from typing import Final

PREFIX: Final = "llmproxy:limits:"


@dataclass(frozen=True, slots=True)
class Script:
    text: str

    @property
    def digest(self) -> str:
        """As Redis names it."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()


# A rate, as GCRA: of the time when its whole burst will be free again, the distance from now is
# kept (the backlog), with the time it was so. ARGV: microseconds between requests that come evenly,
# the longest backlog allowed, permits wanted. Answer: permits, and microseconds to wait if none.
# A clock that goes back stops the time until it is told again; a backlog that a limit of before
# left behind is cut to what the present one allows. A thousandth of a microsecond is granted to the
# rounding of sums. The key lives as long as its backlog, and a second for the clock's sake.
TAKE_RATE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, longest, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local backlog = 0
local stored = redis.call('GET', KEYS[1])
if stored then
  local at, left = string.match(stored, '^(%d+) (%S+)$')
  backlog = math.max(0, tonumber(left) - math.max(0, now - tonumber(at)))
  backlog = math.min(backlog, longest)
end
local permits = math.floor((longest - backlog + 0.001) / interval)
permits = math.max(0, math.min(wanted, permits))
if permits == 0 then
  return {0, math.ceil(backlog + interval - longest)}
end
backlog = backlog + permits * interval
local kept = string.format('%.0f %.17g', now, backlog)
redis.call('SET', KEYS[1], kept, 'PX', string.format('%.0f', math.ceil(backlog / 1000) + 1000))
return {permits, 0}
""")

# Slots: a hash, in which each host says how many it holds, until when (milliseconds) and in which
# message. ARGV: host, slots held, more wanted, the most of all hosts, milliseconds that this is
# good for, number of the message. Answer: slots granted; -1: a later message was here before.
# What is held is told as a whole, not added up: told twice, or once too often, it is still right.
# A host that holds none stays until its time is over, so that a late message changes nothing.
TAKE_SLOTS: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local host, held, wanted, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local kept_ms, number = tonumber(ARGV[5]), tonumber(ARGV[6])
local others = 0
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
  local count, ends, last = string.match(stored[i + 1], '^(%d+) (%d+) (%d+)$')
  if stored[i] == host then
    if tonumber(last) >= number then return -1 end
  elseif tonumber(ends) <= now then
    redis.call('HDEL', KEYS[1], stored[i])
  else
    others = others + tonumber(count)
  end
end
local granted = math.max(0, math.min(wanted, most - others - held))
local kept = string.format('%.0f %.0f %.0f', held + granted, now + kept_ms, number)
redis.call('HSET', KEYS[1], host, kept)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return granted
""")
