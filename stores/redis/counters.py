"""Tallies in Redis: one hash for each, and a Lua script for each kind of change."""

from __future__ import annotations

from typing import Any

from stormcellar.stores.counters import MOST_DOUBLINGS, NO_TALLY, Counters, Rule, Tally, check_key
from stormcellar.stores.records import TOMBSTONE_MS
from stormcellar.stores.redis.client import RedisClient
from stormcellar.stores.redis.scripts import Script

# KEYS[1] the tally, ARGV[1] now. Sets `found` to the stored fields, and count and next to their numbers.
_PRELUDE = """
local key, now = KEYS[1], tonumber(ARGV[1])
local found = redis.pcall('HMGET', key, 'count', 'next', 'expires')
local count, next, expires = tonumber(found[1]), tonumber(found[2]), tonumber(found[3])
local live = count and next and expires and expires > now
"""

# ARGV[2] limit, [3] first wait, [4] longest wait, [5] most doublings, [6] expiry of the tally,
#     [7] how long the key stays: relative, because the clock of the caller may be behind the server's
# Returns whether one was taken, the count, and when the next may be taken.
_TAKE = Script(
    _PRELUDE
    + """
local limit = tonumber(ARGV[2])
if not live then count, next = 0, 0 end
if count >= limit and now < next then return {0, count, next} end
if not live then redis.call('DEL', key) end
count = count + 1
local limited = count >= limit
if limited then
  local doublings = math.min(count - limit, tonumber(ARGV[5]))
  next = now + math.min(tonumber(ARGV[3]) * 2 ^ doublings, tonumber(ARGV[4]))
end
redis.call('HSET', key, 'count', count, 'next', string.format('%.0f', next), 'expires', ARGV[6])
redis.call('PEXPIRE', key, ARGV[7])
return {1, count, limited and next or 0}
"""
)

# ARGV[2] the `next` that the take to undo returned, or 0
_GIVE_BACK = Script(
    _PRELUDE
    + """
if not live then return 'none' end
if count <= 1 then
  redis.call('DEL', key)
  return 'forgotten'
end
redis.call('HSET', key, 'count', count - 1)
if found[2] == ARGV[2] then redis.call('HSET', key, 'next', 0) end
return 'given back'
"""
)


class RedisCounters(Counters):
    """One hash for each tally, with the fields `count`, `next` and `expires`.

    ============  =========================================================
    take          EVALSHA: HMGET, HSET, PEXPIRE; if the key holds no live tally: DEL
    peek          HMGET
    give_back     EVALSHA: HMGET, HSET; at 0: DEL
    forget        DEL
    ============  =========================================================

    Keys are `{prefix}:t:{key}`.
    """

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    async def take(self, key: str, rule: Rule, *, now_ms: int) -> Tally:
        """Take one, unless the limit is reached and the wait is not over."""
        waits = (rule.first_wait_ms, rule.longest_wait_ms, MOST_DOUBLINGS)
        expiry = (now_ms + rule.keep_ms, rule.keep_ms + TOMBSTONE_MS)
        taken, count, next_ms = await self._client.run(
            "take", _TAKE, [self._place(key)], now_ms, rule.limit, *waits, *expiry
        )
        return Tally(bool(taken), count, next_ms)

    async def peek(self, key: str, *, now_ms: int) -> Tally:
        """Return the tally without taking one."""
        reply = await self._client.read("peek", "HMGET", self._place(key), "count", "next", "expires")
        return _parsed(reply, now_ms)

    async def give_back(self, key: str, tally: Tally, *, now_ms: int) -> None:
        """Undo the take that returned *tally*."""
        await self._client.run("give_back", _GIVE_BACK, [self._place(key)], now_ms, tally.next_ms)

    async def forget(self, key: str) -> None:
        """Remove the tally."""
        await self._client.write("forget", "DEL", self._place(key))

    def _place(self, key: str) -> str:
        check_key(key)
        return f"{self._prefix}:t:{key}"


def _parsed(reply: Any, now_ms: int) -> Tally:
    """Return the tally in a *reply* to HMGET. Anything else, such as a key of another type, is `NO_TALLY`."""
    try:
        count, next_ms, expires_ms = map(int, reply)
    except (TypeError, ValueError):
        return NO_TALLY
    return Tally(False, count, next_ms) if expires_ms > now_ms else NO_TALLY
