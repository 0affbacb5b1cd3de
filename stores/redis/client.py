"""The client of the Redis store: batches, time-outs, retries and errors.

A mutation is sent at most once, so redis-py's own retries are off everywhere. Reads are retried once, here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis import asyncio as aioredis
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import NoScriptError

from stormcellar.stores.batching import Batches
from stormcellar.stores.errors import StoreUnavailable
from stormcellar.stores.redis.cluster import ClusterConnections
from stormcellar.stores.redis.connections import (
    DRIVER_ERRORS,
    Command,
    Connections,
    ServerConnections,
    Wait,
    pack,
)
from stormcellar.stores.redis.errors import checked, is_unavailable, store_error
from stormcellar.stores.redis.records import Argument
from stormcellar.stores.redis.scripts import OWNED, Script
from stormcellar.stores.redis.subscription import Cancellation, subscribed
from stormcellar.stores.redis.url import Driver

T = TypeVar("T")

BATCH = 64
"""The largest number of commands in a batch."""

HANDLE = re.compile(rb"[A-Za-z0-9_-]+")

WAIT_SHARE = 0.3
"""How much of the time-out of a call replicas have to confirm a write; in a cluster a reply has 0.4 of it."""


class RedisClient:
    """Sends commands within the time-out of a call, and turns the driver's errors into the store's.

    The commands of one iteration of the event loop are sent together, reads and writes in separate batches:
    no read waits for a slow script, and a batch of reads may be sent again.
    """

    def __init__(self, driver: Driver, *, timeout_s: float, replicas: int = 0) -> None:
        self.is_cluster = isinstance(driver, aioredis.RedisCluster)
        """Whether the keys of a script must be in one slot."""
        self.is_durable = replicas > 0
        """Whether replicas must confirm that a session began, rotated or ended."""
        self._driver = driver
        self._timeout_s = timeout_s
        self._connections: Connections = (
            ServerConnections(driver) if isinstance(driver, aioredis.Redis) else ClusterConnections(driver)
        )
        self._reads = Batches(self._send_reads, max_size=BATCH)
        self._writes = Batches(self._send_writes, max_size=BATCH)
        self.wait = Wait(replicas, int(WAIT_SHARE * timeout_s * 1000)) if replicas else None
        """Which replicas must confirm what `run_durably` writes."""
        self._durable = Batches(self._send_durable, max_size=BATCH) if replicas else self._writes
        self._is_closed = False
        self._waits: set[asyncio.Future[Any]] = set()

    async def read(self, operation: str, name: str, key: str, *arguments: Argument) -> Any:
        """Send a command that only reads. For a key of a foreign type, return the error."""
        reply = await self._submit(self._reads, operation, key, (name, key, *arguments))
        return reply if type(reply) is list else checked(operation, reply)

    async def read_each(
        self, operation: str, name: str, keys: Sequence[str], *arguments: Argument
    ) -> list[Any]:
        """Send the command for each of *keys*, one batch after the other."""
        replies: list[Any] = []
        for start in range(0, len(keys), BATCH):
            asked = [
                self._submit(self._reads, operation, key, (name, key, *arguments))
                for key in keys[start : start + BATCH]
            ]
            replies += [checked(operation, await reply) for reply in asked]
        return replies

    async def write(self, operation: str, name: str, key: str, *arguments: Argument) -> Any:
        """Send a command that writes, once. For a key of a foreign type, return the error."""
        return checked(operation, await self._submit(self._writes, operation, key, (name, key, *arguments)))

    async def run(self, operation: str, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """Run *script*, once. A server that does not have it did not execute it, and receives the text."""
        return await self._run(self._writes, operation, script, keys, arguments)

    async def run_durably(
        self, operation: str, script: Script, keys: Sequence[str], *arguments: Argument
    ) -> Any:
        """Run *script*, once, and wait until as many replicas have its write as the store was opened with.

        Raises:
            StoreUnavailable: Also if they do not confirm it in time; a write is done all the same.
        """
        return await self._run(self._durable, operation, script, keys, arguments)

    async def run_as_read(
        self, operation: str, script: Script, keys: Sequence[str], *arguments: Argument
    ) -> Any:
        """Run *script*, which is known to change nothing, in a batch of reads."""
        return await self._run(self._reads, operation, script, keys, arguments)

    async def replies(
        self, operation: str, commands: Sequence[tuple[str, tuple[Argument, ...]]]
    ) -> list[Any]:
        """Send *commands*, each with its key, as reads; return for each its reply or the driver's error."""
        asked = [self._submit(self._reads, operation, key, words) for key, words in commands]
        return [await reply for reply in asked]

    async def _run(
        self,
        batches: Batches[Command, Any],
        operation: str,
        script: Script,
        keys: Sequence[str],
        arguments: tuple[Argument, ...],
    ) -> Any:
        until, rest = self.until(), (len(keys), *keys, *arguments)
        reply = await self._submit(batches, operation, keys[0], ("EVALSHA", script.sha, *rest))
        if isinstance(reply, NoScriptError):
            async with self.within(operation, until=until):
                reply = await self._submit(batches, operation, keys[0], ("EVAL", script.text, *rest))
        if isinstance(reply, Exception):
            raise store_error(operation, reply) from reply
        return reply

    def _submit(
        self,
        batches: Batches[Command, Any],
        operation: str,
        key: str,
        command: tuple[Argument, ...],
    ) -> asyncio.Future[Any]:
        """Return the future reply or driver's error. The batch has a time-out of its own."""
        if self._is_closed:
            raise StoreUnavailable(f"{operation}: the store is closed")
        return batches.submit((pack(command), key))

    async def _send_writes(self, commands: Sequence[Command]) -> list[Any]:
        return await self._connections.send(commands, until=self.until())

    async def _send_durable(self, commands: Sequence[Command]) -> list[Any]:
        return await self._connections.send(commands, until=self.until(), wait=self.wait)

    async def _send_reads(self, commands: Sequence[Command]) -> list[Any]:
        """Send *commands*; after half of the time-out, send once more those that failed or have no reply."""
        until = self.until()
        replies = await self._connections.send(commands, until=until - self._timeout_s / 2)
        again = [number for number, reply in enumerate(replies) if is_unavailable(reply)]
        if again and not self._is_closed:
            second = await self._connections.send([commands[number] for number in again], until=until)
            for number, reply in zip(again, second, strict=True):
                replies[number] = reply
        return replies

    def until(self) -> float:
        """Return when a call that starts now times out, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout_s

    @asynccontextmanager
    async def within(self, operation: str, *, until: float | None = None) -> AsyncIterator[float]:
        """Limit the time of a block of several commands, and turn its errors into the store's.

        Args:
            until: When it times out, on the loop's clock, to share the time-out of an earlier step.
        """
        if self._is_closed:
            raise StoreUnavailable(f"{operation}: the store is closed")
        until = until or self.until()
        try:
            async with asyncio.timeout_at(until):
                yield until
        except DRIVER_ERRORS as exc:
            raise store_error(operation, exc) from exc

    async def info(self, section: str) -> AsyncIterator[dict[str, Any]]:
        """Yield this section of INFO of every primary node."""
        for node in await self._primaries():
            async with self.within("info"), self._connections.slots:
                found: dict[str, Any] = await node.execute_command("INFO", section)
            yield found

    async def handles(self, start: str, *, user: bytes | None = None) -> AsyncGenerator[list[bytes], None]:
        """Yield pages of the handles whose keys begin with *start*, from every primary node, some twice.

        Args:
            user: Only those of records with this user, which the server selects, and a few of others.
        """
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", start) + "*"
        for node in await self._primaries():
            cursor: bytes | int = 0
            while True:
                command: tuple[Argument, ...] = ("SCAN", cursor, "MATCH", pattern, "COUNT", 4 * BATCH)
                if user is not None:
                    command = ("EVAL", OWNED.text, 0, cursor, pattern, 16 * BATCH, user)
                async with self.within("scan"), self._connections.slots:
                    cursor, keys = await node.execute_command(*command)
                names = [key[len(start) :] for key in keys]
                # Another prefix may begin with ours; the rest of its keys is then not a handle.
                yield [name for name in names if HANDLE.fullmatch(name)]
                if int(cursor) == 0:
                    break

    async def _primaries(self) -> Sequence[aioredis.Redis | ClusterNode]:
        if isinstance(self._driver, aioredis.Redis):
            return [self._driver]
        async with self.within("scan"):
            await self._driver.initialize()
        return self._driver.get_primaries()

    async def messages(self, channel: str) -> AsyncGenerator[bytes | None, None]:
        """Yield None when the server has confirmed the subscription, then the messages on *channel*.

        Ends when the connection breaks, when the server does not answer a PING, or when the store is closed.
        """
        if self._is_closed:
            raise StoreUnavailable("gone: the store is closed")
        cancellation = Cancellation()
        try:
            async with subscribed(self._connections, channel, timeout_s=self._timeout_s) as subscription:
                yield None
                while not self._is_closed:
                    message = await self._until_closed(subscription.next())
                    cancellation.check()
                    if message is not None:
                        yield message
        except DRIVER_ERRORS as exc:
            raise store_error("gone", exc) from exc

    async def try_subscribe(self, channel: str) -> None:
        """Subscribe to *channel* on a connection of its own, send a PING, and close that."""
        async with (
            self.within("gone"),
            subscribed(self._connections, channel, timeout_s=self._timeout_s) as subscription,
        ):
            await subscription.ping()

    async def pause(self, delay_s: float) -> bool:
        """Wait, and return whether the store is still open."""
        if not self._is_closed:
            await self._until_closed(asyncio.sleep(delay_s))
        return not self._is_closed

    async def _until_closed(self, waiting: Awaitable[T]) -> T | None:
        """Await *waiting*; None as soon as the store is closed."""
        future = asyncio.ensure_future(waiting)
        self._waits.add(future)
        try:
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_closed and task is not None and not task.cancelling():
                return None
            raise
        finally:
            self._waits.discard(future)

    async def aclose(self) -> None:
        """Stop waiting for messages and close every connection. Idempotent."""
        self._is_closed = True
        for future in self._waits:
            future.cancel()
        await self._connections.aclose()
        for batches in (self._reads, self._writes, self._durable):
            await batches.drain()
        await self._connections.aclose()  # a connection that a batch was just opening
