"""What runs inside Redis: each script touches one key, whose name is `PREFIX` and a limit's key.

Numbers are Lua's doubles: microseconds of this century fit exactly. They are written by `%.0f` and
`%.17g`, because Lua by itself would cut them to 14 digits.
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


# A rate, as `IssuingGcra` does it, in microseconds. Of a key is kept: when it was written, how far
# the theoretical arrival was ahead then (`debt`), how many were issued since when, and the interval
# and burst of that time. ARGV: interval, burst, lag, permits wanted. Answer: permits, how long to
# wait if there are none, and the time. After a change of the limit nobody knows how many were
# issued: too many. The rounding of sums is allowed a nanosecond. A clock that goes back counts
# as one that stands still.
_RATE_STATE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst, lag = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local debt, issued, since, altered = -lag, 0, now, false
local stored = redis.call('GET', KEYS[1])
if stored then
  local at, owed, number, start, pace, size =
    string.match(stored, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  debt = tonumber(owed) - math.max(0, now - tonumber(at))
  issued, since = tonumber(number), tonumber(start)
  if tonumber(pace) ~= interval or tonumber(size) ~= burst then
    debt = math.max(0, debt) * (interval * burst) / (pace * size)
    issued, altered = 1e15, true
  end
end
local function keep()
  local kept = string.format(
    '%.0f %.17g %.0f %.0f %.17g %.0f', now, debt, issued, since, interval, burst)
  local kept_ms = math.max(0, math.ceil((debt + lag) / 1000)) + 1000
  redis.call('SET', KEYS[1], kept, 'PX', string.format('%.0f', kept_ms))
end
"""

TAKE_RATE: Final = Script(
    _RATE_STATE
    + """
local wanted = tonumber(ARGV[4])
if debt <= -lag then
  issued, since = 0, now
end
local begun = math.max(0, debt)
local free = math.max(0, math.min(wanted, burst - issued))
local room = interval * burst - lag - begun - free * interval
local late = math.max(0, math.min(wanted - free, math.floor((room + 0.001) / interval)))
local permits = free + late
if permits == 0 then
  if altered then
    keep()
  end
  return {0, math.max(0, math.ceil(debt + lag - interval * (burst - 1))), now}
end
debt = begun + permits * interval
issued = issued + permits
keep()
return {permits, 0, now}
"""
)

# ARGV from the fourth: permits that were never used, and when they were issued at the earliest.
# Answer: the time.
GIVE_RATE: Final = Script(
    _RATE_STATE
    + """
if not stored then
  return now
end
local permits, issued_at = tonumber(ARGV[4]), tonumber(ARGV[5])
debt = debt - math.max(0, permits * interval - math.max(0, now - issued_at))
if issued_at > since - lag - interval then
  issued = math.max(0, issued - permits)
end
keep()
return now
"""
)

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
