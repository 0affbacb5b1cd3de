"""The rights that a store needs in Redis, tried one by one without an effect on any session."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from stormcellar.stores.errors import Problem, ReplicasMissing, StoreFull, StoreRefused
from stormcellar.stores.redis.client import RedisClient
from stormcellar.stores.redis.errors import LACKS_RIGHT, store_error
from stormcellar.stores.redis.scripts import Script

# KEYS[1] a key that no session has, ARGV[1] the channel, [2...] commands: @ is the key, & the channel
# Returns each command that failed, and its error. The key exists only within the script. If DEL, the first
# command, is refused, nothing is written. The error of a server that may not write is the reply, so that the
# client looks for another one.
TRY = Script("""
local failed = {}
for i = 2, #ARGV do
  local words = {}
  for word in string.gmatch(ARGV[i], '%S+') do
    words[#words + 1] = word == '@' and KEYS[1] or word == '&' and ARGV[1] or word
  end
  local reply = redis.pcall(unpack(words))
  if type(reply) == 'table' and reply.err then
    if string.find(reply.err, 'READONLY') or string.find(reply.err, 'NOREPLICAS') then return reply end
    failed[#failed + 1] = words[1]
    failed[#failed + 1] = reply.err
    if i == 2 then break end
  end
end
return failed
""")

# The commands of the scripts in `redis.scripts` and `redis.counters`. No handle matches the message `?`.
RECORD = (
    *("DEL @", "EXISTS @", "HSET @ f 1", "PEXPIRE @ 60000", "HMGET @ f", "HGET @ f", "HLEN @", "HKEYS @"),
    *("HDEL @ g", "DEL @", "PUBLISH & ?"),
)
INDEX = (
    *("DEL @", "ZADD @ XX GT 1 m", "PTTL @", "PEXPIRE @ 60000", "ZCARD @", "ZRANDMEMBER @ 1"),
    *("ZSCAN @ 0 COUNT 1", "ZSCORE @ m", "ZMSCORE @ m", "ZREM @ m"),
)
TALLY = ("DEL @", "HMGET @ f", "HSET @ f 1", "PEXPIRE @ 60000", "DEL @")

Failure = tuple[str, BaseException]
"""The name of a command, and its error."""


class Rights:
    """The rights to the keys under *prefix* and to the channel."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._channel = f"{prefix}:gone"
        self._is_push_tried = False

    async def check(self) -> None:
        """Try each right: all commands in one batch; those of push and scan until they were granted once.

        Raises:
            StoreRefused: It names what to grant.
            ReplicasMissing: Only this is wrong.
            StoreUnavailable: See `RedisClient`. A full server is not an error.
        """
        commands = self._commands()
        replies = await self._client.replies("ping", commands)
        self._require(
            [
                failure
                for (_, words), reply in zip(commands, replies, strict=True)
                for failure in _failed(words[0], reply)
            ]
        )
        if not self._is_push_tried:
            self._require(
                [*await self._refused("SUBSCRIBE", self._subscribe), *await self._refused("SCAN", self._scan)]
            )
            self._is_push_tried = True
        if (wait := self._client.wait) and replies[-1] < wait.replicas:
            what = f"{replies[-1]} of the {wait.replicas} replicas that ?wait= asks for confirm writes"
            problem = Problem(what, "start the replicas, or ask for fewer in the URL")
            raise ReplicasMissing(f"ping: {problem}", problem)

    def _commands(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Return the commands, each with the key that decides which node of a cluster receives it."""
        record, index, tally = (f"{self._prefix}:{kind}:" for kind in "sut")
        scripts = ((record, RECORD), (index, INDEX), (tally, TALLY))
        is_cluster, wait = self._client.is_cluster, self._client.wait
        # On one server a script uses a record and an index together; a node of a cluster refuses that.
        keys = (record,) if is_cluster else (record, index)
        return [
            # Not the last one, because it holds for the next command of its connection.
            *([(record, ("ASKING",))] if is_cluster else []),
            (record, ("EVAL", "return 1", len(keys), *keys)),
            *[(key, ("EVAL", TRY.text, 1, key, self._channel, *lines)) for key, lines in scripts],
            (record, ("EVALSHA", TRY.sha, 1, record, self._channel)),
            (record, ("HGETALL", record)),
            (record, ("HMGET", record, "f")),
            (record, ("EXISTS", record)),
            (index, ("ZSCORE", index, "m")),
            (index, ("ZREM", index, "m")),
            (tally, ("HMGET", tally, "f")),
            (tally, ("DEL", tally)),
            *([(record, ("WAIT", wait.replicas, wait.timeout_ms))] if wait else []),
        ]

    async def _subscribe(self) -> None:
        await self._client.try_subscribe(self._channel)

    async def _scan(self) -> None:
        async with aclosing(self._client.handles(f"{self._prefix}:s:")) as pages:
            await anext(pages)

    async def _refused(self, name: str, call: Callable[[], Awaitable[None]]) -> list[Failure]:
        try:
            await call()
        except StoreRefused as exc:
            return [(name, exc.__cause__ or exc)]
        return []

    def _require(self, failures: Iterable[Failure]) -> None:
        """Raise the error of the first of *failures* that is not about a right, else one about all rights."""
        grants: dict[str, None] = {}
        for name, failure in failures:
            error = store_error("ping", failure)
            if error.problem == LACKS_RIGHT:
                grants[self._grant(name, str(failure))] = None
            elif not isinstance(error, StoreFull):
                raise error from failure
        if grants:
            what = f"the Redis user lacks a right: {' '.join(grants)}"
            problem = Problem(what, "grant it with ACL SETUSER; docs/operations.md lists all that are needed")
            raise StoreRefused(f"ping: {problem}", problem)

    def _grant(self, command: str, text: str) -> str:
        """Return the rule of an ACL that allows what the error with *text* refused."""
        # First, because since Redis 7 this text names the user, and the name may contain "keys". The command
        # may be one of the handshake, such as SELECT.
        if named := re.search(r"run the '([\w|-]+)' command", text):
            return f"+{named[1].lower()}"
        if "channel" in text:
            return f"&{self._channel}"
        if re.search(r"\bkeys?\b", text):
            return f"~{self._prefix}:*"
        # Within a script Redis 6 does not name the command.
        return f"+{command.lower()}"


def _failed(name: str, reply: Any) -> list[Failure]:
    """Return the failures in the *reply* to the command *name*, those within the script `TRY` included."""
    if isinstance(reply, NoScriptError):
        return []  # the server has evicted the script, and would run it
    if isinstance(reply, Exception):
        return [(name, reply)]
    if name != "EVAL" or not isinstance(reply, list):
        return []
    texts = [each.decode(errors="replace") for each in reply]
    return [(command, ResponseError(text)) for command, text in zip(texts[::2], texts[1::2], strict=True)]
