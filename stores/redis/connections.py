"""The connections to Redis: each batch of commands is sent over one connection, in one write.

The connections are redis-py's, with its handshake, TLS and reconnection. Its pipelines are not used: for each
command they do several times the work of sending it, and one lost reply fails the replies already read.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import hiredis
from redis import asyncio as aioredis
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import (
    MasterDownError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

# hiredis types it as if a command had only one argument.
pack: Any = hiredis.pack_command

CONNECTIONS = 32
"""How many batches this process has on the wire at once; the others wait for a free slot."""

ASK_AGAIN_S = 1.0
"""How often Sentinels are asked for the primary at most."""

# RedisClusterException is not a RedisError; the TimeoutError of asyncio is an OSError.
DRIVER_ERRORS = (RedisError, RedisClusterException, OSError)

Command = tuple[bytes, str]
"""A command on one key: its bytes as sent, and the key."""

_ASKING = b"*1\r\n$6\r\nASKING\r\n"


class TooFewReplicas(RedisError):
    """In time fewer replicas than were asked for have confirmed that they have what the primary has."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The command WAIT, sent after the writes of a batch over their connection."""

    replicas: int
    timeout_ms: int

    @property
    def packed(self) -> bytes:
        """The command as sent."""
        packed: bytes = pack(("WAIT", self.replicas, self.timeout_ms))
        return packed

    def check(self, replies: list[Any], confirmed: int) -> list[Any]:
        """Return *replies*, replaced by an error, except for refusals, if too few replicas have confirmed.

        Also replies of calls that wrote nothing, since what they saw may be a write that is not confirmed.
        """
        if confirmed >= self.replicas:
            return replies
        error = TooFewReplicas(
            f"the primary has carried out the call, but {confirmed} of {self.replicas} replicas "
            f"have confirmed its state in {self.timeout_ms} ms"
        )
        return [reply if isinstance(reply, ResponseError) else error for reply in replies]


class Node(Protocol):
    """Source of connections to one server, with the methods of redis-py's `ClusterNode`."""

    def acquire_connection(self) -> Any:
        """Return a connection that is not in use, connected or not."""

    def release(self, connection: Any) -> None:
        """Take *connection* back."""


class Connections(ABC):
    """Sends commands, and at most `CONNECTIONS` batches of them at once."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(CONNECTIONS)

    @abstractmethod
    async def send(self, commands: Sequence[Command], *, until: float, wait: Wait | None = None) -> list[Any]:
        """Send each of *commands* once, and return for each its reply or the driver's error.

        An error that breaks off the exchange is returned for each command whose reply was not read by then.

        Args:
            until: When to give up, on the loop's clock. Waiting for a slot counts.
            wait: Which replicas must confirm the commands; see `exchange`.
        """

    @abstractmethod
    async def pubsub(self) -> Any:
        """Return a new subscriber of redis-py's, without a subscription, that leads to a present node."""

    async def primary(self, *, limit_s: float) -> object:
        """Return what identifies the primary if Sentinels name it; otherwise always the same.

        Args:
            limit_s: How long to ask. Without an answer it is the one that was named before.
        """
        return None

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection."""


class Pool(Node):
    """Takes connections from redis-py's pool and keeps them: taking one costs as much as several commands.

    redis-py's pool counts each of them as in use.
    """

    def __init__(self, client: aioredis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._free: list[Any] = []

    def acquire_connection(self) -> Any:
        """Return the connection used last, or a new one."""
        return self._free.pop() if self._free else self._pool.get_available_connection()

    def release(self, connection: Any) -> None:
        """Keep *connection* for the next batch."""
        self._free.append(connection)

    async def reconnect(self) -> None:
        """Have every connection connect again before its next batch.

        Behind one address another server may answer now, and after a failure the others lead to the old one.
        """
        await self._pool.disconnect(inuse_connections=False)
        await self._pool.update_active_connections_for_reconnect()


class PrimaryPool(SentinelConnectionPool):
    """redis-py's pool of connections to the primary that Sentinels name."""

    async def get_master_address(self) -> Any:
        """Return it. If it is another one than before, no connection stays with the former."""
        pool: Any = self
        address = await pool.sentinel_manager.discover_master(pool.service_name)
        former, pool.master_address = pool.master_address, address
        if former not in (None, address):
            # In one step with the address, since redis-py waits in between: somebody who asks meanwhile would
            # take it that all connections have moved.
            for connection in pool._in_use_connections:
                connection.mark_for_reconnect()
            await pool.disconnect(inuse_connections=False)
        return address


class ServerConnections(Connections):
    """The connections to one server, or to the primary of a service that has Sentinels."""

    def __init__(self, client: aioredis.Redis) -> None:
        super().__init__()
        self._client = client
        self._pool = Pool(client)
        self._ask_at_s = 0.0
        self._asking: asyncio.Task[object] | None = None

    async def send(self, commands: Sequence[Command], *, until: float, wait: Wait | None = None) -> list[Any]:
        """Send each of *commands*; see `Connections.send`."""
        replies: list[Any] = []
        self._ask_sentinels()
        try:
            async with asyncio.timeout_at(until), self.slots:
                is_well = False
                try:
                    is_well = await exchange(self._pool, commands, replies, wait=wait)
                finally:
                    if not is_well:
                        await self._pool.reconnect()
        except DRIVER_ERRORS as exc:
            replies += [exc] * (len(commands) - len(replies))
        return replies

    async def pubsub(self) -> Any:
        """Return a new subscriber."""
        await self._client.initialize()
        return self._client.pubsub()

    async def primary(self, *, limit_s: float) -> object:
        """Return the address that the Sentinels name. If it is another one, no connection stays behind."""
        pool = self._client.connection_pool
        if not isinstance(pool, PrimaryPool):
            return None
        with suppress(*DRIVER_ERRORS):
            async with asyncio.timeout(limit_s):
                await pool.get_master_address()
        return pool.master_address

    def _ask_sentinels(self) -> None:
        """Ask where the primary is, now and then, while commands are sent.

        One that was replaced on request goes on as a primary until the Sentinels make it a replica: then what
        was written meanwhile is lost.
        """
        loop = asyncio.get_running_loop()
        if isinstance(self._client.connection_pool, PrimaryPool) and loop.time() >= self._ask_at_s:
            self._ask_at_s = loop.time() + ASK_AGAIN_S
            self._asking = loop.create_task(self.primary(limit_s=ASK_AGAIN_S))

    async def aclose(self) -> None:
        """Close every connection, those in use as well."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._client.aclose()
        if isinstance(self._client.connection_pool, PrimaryPool):
            await self._client.connection_pool.sentinel_manager.aclose()


async def exchange(
    node: Node,
    commands: Sequence[Command],
    replies: list[Any],
    *,
    is_asking: bool = False,
    wait: Wait | None = None,
) -> bool:
    """Send *commands* over one connection of *node*; add each reply or error to *replies* as it is read.

    Args:
        is_asking: Whether ASKING precedes each command: it holds for the next command of the connection only.
        wait: The WAIT to send after the commands. Their replies count only when its own reply is there.

    Returns:
        Whether the server is still a primary, as far as its replies show.
    """
    connection = node.acquire_connection()
    before = _ASKING if is_asking else b""
    after = [] if wait is None else [wait.packed]
    is_primary, read = True, replies if wait is None else []
    try:
        if not connection.is_connected or connection.should_reconnect() or await connection.can_read():
            await connection.disconnect(nowait=True)  # closed by the server meanwhile, or out of date
            await connection.connect()
        while connection.should_reconnect():  # another primary was named while it connected
            await connection.disconnect(nowait=True)
            await connection.connect()
        await connection.send_packed_command(b"".join([before + packed for packed, _ in commands] + after))
        for _ in commands:
            refusal = await _refusal(connection) if is_asking else None
            try:
                reply = await connection.read_response()
                read.append(refusal or reply)
            except ResponseError as exc:
                read.append(refusal or exc)
                is_primary = is_primary and not is_no_primary(exc)
        if wait is not None:
            replies += wait.check(read, await connection.read_response())
    finally:
        try:
            if len(replies) < len(commands) or not is_primary or connection.should_reconnect():
                # A late reply must not be read by the next batch on this connection.
                await connection.disconnect(nowait=True)
        finally:
            node.release(connection)
    return is_primary


async def _refusal(connection: Any) -> ResponseError | None:
    """Read the reply to ASKING, and return its error: a missing right."""
    try:
        await connection.read_response()
    except ResponseError as exc:
        return exc
    return None


def is_no_primary(error: ResponseError) -> bool:
    """Return whether the server refuses because it is a replica, or a primary that lost its replicas.

    Until Redis 7 an error within a script is a plain one, with the reason in its text.
    """
    if isinstance(error, ReadOnlyError | MasterDownError):
        return True
    text = str(error)
    return text.startswith("NOREPLICAS") or "-READONLY " in text or "-NOREPLICAS " in text
