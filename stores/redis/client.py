"""The client of the Redis store: batches, time-outs, retries and errors.

A mutation is sent at most once, so redis-py's own retries are off everywhere. Reads are retried once, here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import hiredis
from redis import asyncio as aioredis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ResponseError,
)

from stormcellar.stores.batching import Batches
from stormcellar.stores.errors import StoreError, StoreFull, StoreRefused, StoreUnavailable
from stormcellar.stores.redis.cluster import ClusterConnections
from stormcellar.stores.redis.connections import DRIVER_ERRORS, Command, Connections, ServerConnections
from stormcellar.stores.redis.records import Argument
from stormcellar.stores.redis.scripts import Script
from stormcellar.stores.redis.url import Driver

T = TypeVar("T")

BATCH = 64
"""The largest number of commands in a batch."""

# hiredis types it as if a command had only one argument.
_pack: Any = hiredis.pack_command


def store_error(operation: str, exc: BaseException) -> StoreError:
    """Return the error of the contract for the driver's *exc*.

    Its message has only the class of *exc*: a server's error text repeats arguments, those of AUTH included.
    """
    summary = f"{operation}: {type(exc).__name__} from Redis"
    cause: BaseException | None = exc
    while cause is not None:
        # A failure inside a script is a plain error with the reason in its text: since Redis 6.2 for lack of
        # memory, in every version for lack of rights.
        text = str(cause) if isinstance(cause, ResponseError) else ""
        if isinstance(cause, OutOfMemoryError) or "OOM command not allowed" in text:
            return StoreFull(summary)
        if isinstance(cause, AuthenticationError | AuthorizationError | NoPermissionError):
            return StoreRefused(summary)
        # Of Sentinels that refuse, redis-py has only the text.
        if isinstance(cause, MasterNotFoundError) and "AuthenticationError" in str(cause):
            return StoreRefused(f"{summary}: a Sentinel refuses sentinel_username or sentinel_password")
        if "ACL failure in script" in text or "user executing the script can't" in text:
            return StoreRefused(summary)
        cause = cause.__cause__ or cause.__context__
    return StoreUnavailable(summary)


def is_foreign(reply: object) -> bool:
    """Return whether *reply* is the error for a key that holds another type than ours."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def is_unavailable(reply: object) -> bool:
    """Return whether *reply* is an error after which a retry may succeed."""
    if not isinstance(reply, Exception) or isinstance(reply, NoScriptError) or is_foreign(reply):
        return False
    return type(store_error("", reply)) is StoreUnavailable


class RedisClient:
    """Sends commands within the time-out of a call, and turns the driver's errors into the store's.

    The commands of one iteration of the event loop are sent together, reads and writes in separate batches:
    no read waits for a slow script, and a batch of reads may be sent again.
    """

    def __init__(self, driver: Driver, *, timeout_s: float) -> None:
        self.is_cluster = isinstance(driver, aioredis.RedisCluster)
        """Whether the keys of a script must be in one slot."""
        self._driver = driver
        self._timeout_s = timeout_s
        self._connections: Connections = (
            ServerConnections(driver) if isinstance(driver, aioredis.Redis) else ClusterConnections(driver)
        )
        self._reads = Batches(self._send_reads, max_size=BATCH)
        self._writes = Batches(self._send_writes, max_size=BATCH)
        self._is_closed = False
        self._waits: set[asyncio.Future[Any]] = set()

    async def read(self, operation: str, name: str, key: str, *arguments: Argument) -> Any:
        """Send a command that only reads. For a key of a foreign type, return the error."""
        reply = await self._submit(self._reads, operation, key, (name, key, *arguments))
        return reply if type(reply) is list else _checked(operation, reply)

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
            replies += [_checked(operation, await reply) for reply in asked]
        return replies

    async def write(self, operation: str, name: str, key: str, *arguments: Argument) -> Any:
        """Send a command that writes, once. For a key of a foreign type, return the error."""
        return _checked(operation, await self._submit(self._writes, operation, key, (name, key, *arguments)))

    async def run(self, operation: str, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """Run *script*, once. A server that does not have it did not execute it, and receives the text."""
        return await self._run(self._writes, operation, script, keys, arguments)

    async def run_as_read(
        self, operation: str, script: Script, keys: Sequence[str], *arguments: Argument
    ) -> Any:
        """Run *script*, which is known to change nothing, in a batch of reads."""
        return await self._run(self._reads, operation, script, keys, arguments)

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
        return batches.submit((_pack(command), key))

    async def _send_writes(self, commands: Sequence[Command]) -> list[Any]:
        return await self._connections.send(commands, until=self.until())

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

    async def info(self, section: str) -> dict[str, Any]:
        """Return a section of INFO."""
        async with self.within("info"), self._connections.slots:
            found: dict[str, Any] = await self._driver.execute_command("INFO", section)
        return found

    async def scan(self, pattern: str) -> AsyncGenerator[list[bytes], None]:
        """Yield pages of the keys that match *pattern*, from every primary node. A key may appear twice."""
        for node in await self._primaries():
            cursor = 0
            while True:
                async with self.within("scan"), self._connections.slots:
                    cursor, keys = await node.execute_command(
                        "SCAN", cursor, "MATCH", pattern, "COUNT", 4 * BATCH
                    )
                yield keys
                if cursor == 0:
                    break

    async def _primaries(self) -> Sequence[aioredis.Redis | ClusterNode]:
        if isinstance(self._driver, aioredis.Redis):
            return [self._driver]
        async with self.within("scan"):
            await self._driver.initialize()
        return self._driver.get_primaries()

    async def messages(self, channel: str) -> AsyncGenerator[bytes, None]:
        """Yield the messages on *channel* until the connection breaks or the store is closed."""
        async with self.within("gone"):
            await self._driver.initialize()
            pubsub: Any = self._driver.pubsub()
        try:
            async with asyncio.timeout(self._timeout_s):
                await pubsub.subscribe(channel)
            while not self._is_closed:
                message = await self._until_closed(
                    pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
                )
                if message is not None:
                    yield message["data"]
        except DRIVER_ERRORS as exc:
            raise store_error("gone", exc) from exc
        finally:
            await pubsub.aclose()

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
        for batches in (self._reads, self._writes):
            await batches.drain()
        await self._connections.aclose()  # a connection that a batch was just opening


def _checked(operation: str, reply: Any) -> Any:
    if isinstance(reply, Exception) and not is_foreign(reply):
        raise store_error(operation, reply) from reply
    return reply
