"""The lines to Redis: a batch of commands leaves by one connection, in one piece.

The connections are redis-py's, with its greeting, TLS and reconnection. Its pipelines are not used: for each
command they do several times the work of sending it, and one reply that is lost fails all that were read.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

from redis import asyncio as aioredis
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from stormcellar.stores.redis.records import Argument

CONNECTIONS = 32
"""How many batches are on the wire at once, in this process; the others wait their turn."""

# RedisClusterException is not a RedisError; the TimeoutError of asyncio is an OSError.
DRIVER_ERRORS = (RedisError, RedisClusterException, OSError)


Command = tuple[bytes, str, tuple[Argument, ...]]
"""A command on one key: as it is sent, the key, and its words."""


class Node(Protocol):
    """Where connections to one server come from, as redis-py's `ClusterNode` has it."""

    def acquire_connection(self) -> Any:
        """Return a connection that nobody else has, connected or not."""

    def release(self, connection: Any) -> None:
        """Take *connection* back."""


class Lines(ABC):
    """Sends commands, and at most `CONNECTIONS` batches of them at once."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(CONNECTIONS)

    @abstractmethod
    async def send(self, commands: Sequence[Command], *, until: float) -> list[Any]:
        """Send each of *commands* once, and return for each its reply, or the driver's error.

        What broke the exchange off is the answer to each command whose reply had not been read by then.

        Args:
            until: When to give up on the loop's clock, waiting for a turn included.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection."""


class Pool(Node):
    """Lends connections of redis-py's pool, and keeps them: to ask that for one costs as much as commands."""

    def __init__(self, client: aioredis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._free: list[Any] = []

    def acquire_connection(self) -> Any:
        """Return the one used last, or another."""
        return self._free.pop() if self._free else self._pool.get_available_connection()

    def release(self, connection: Any) -> None:
        """Keep *connection* for the next."""
        self._free.append(connection)


class ServerLines(Lines):
    """The lines to one server."""

    def __init__(self, client: aioredis.Redis) -> None:
        super().__init__()
        self._client = client
        self._pool = Pool(client)

    async def send(self, commands: Sequence[Command], *, until: float) -> list[Any]:
        """Send each of *commands* as `Lines` promises."""
        replies: list[Any] = []
        try:
            async with asyncio.timeout_at(until), self.turns:
                await exchange(self._pool, commands, replies)
        except DRIVER_ERRORS as exc:
            replies += [exc] * (len(commands) - len(replies))
        return replies

    async def aclose(self) -> None:
        """Close every connection, those in use as well."""
        await self._client.aclose()


async def exchange(node: Node, commands: Sequence[Command], replies: list[Any]) -> None:
    """Send *commands* by a connection of *node*; append the reply to each, or its error, as it is read."""
    connection = node.acquire_connection()
    try:
        if connection.is_connected and await connection.can_read():
            await connection.disconnect()  # closed by the server since; it connects again to send
        await connection.send_packed_command(b"".join([packed for packed, _, _ in commands]))
        for _ in commands:
            try:
                replies.append(await connection.read_response())
            except ResponseError as exc:
                replies.append(exc)
    finally:
        try:
            if len(replies) < len(commands):
                # A reply that is still to come must not meet whoever has this connection next.
                await connection.disconnect(nowait=True)
        finally:
            node.release(connection)
