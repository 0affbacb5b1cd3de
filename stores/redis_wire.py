"""How the Redis store talks to its server: turns, budget, retries and errors.

A mutation is sent at most once, so redis-py's own retries are off everywhere; reads are retried once, here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis import asyncio as aioredis
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from stores.errors import StoreError, StoreFull, StoreRefused, StoreUnavailable
from stores.redis_records import Argument
from stores.redis_scripts import Script
from stores.redis_url import Client

T = TypeVar("T")

CONNECTIONS = 32
"""How many calls are on the wire at once, in this process; the others wait their turn."""

BATCH = 64
"""How many commands one round trip carries at most."""

# RedisClusterException is not a RedisError; the TimeoutError of asyncio is an OSError.
DRIVER_ERRORS = (RedisError, RedisClusterException, OSError)


def refusal(operation: str, exc: BaseException) -> StoreError:
    """Return what the driver's *exc* means in the terms of the contract.

    The message names no more than the exception's class: servers repeat arguments in errors, of AUTH too.
    """
    summary = f"{operation}: {type(exc).__name__} from Redis"
    cause: BaseException | None = exc
    while cause is not None:
        # What fails inside a script is a plain error with the reason in its text: from Redis 6.2 for want of
        # memory, from every version for want of rights.
        text = str(cause) if isinstance(cause, ResponseError) else ""
        if isinstance(cause, OutOfMemoryError) or "OOM command not allowed" in text:
            return StoreFull(summary)
        if isinstance(cause, AuthenticationError | AuthorizationError | NoPermissionError):
            return StoreRefused(summary)
        if "ACL failure in script" in text or "user executing the script can't" in text:
            return StoreRefused(summary)
        cause = cause.__cause__ or cause.__context__
    return StoreUnavailable(summary)


def is_foreign(reply: object) -> bool:
    """Return whether *reply* says that the key holds another type than ours."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


class Wire:
    """Sends commands within the budget of a call, and turns the driver's errors into the store's."""

    def __init__(self, client: Client, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._is_closed = False
        self._waits: set[asyncio.Future[Any]] = set()

    @asynccontextmanager
    async def budget(self, operation: str, *, until: float | None = None) -> AsyncIterator[float]:
        """Bound what happens inside, waiting for a turn included, and map what it raises.

        Args:
            until: When the budget ends on the loop's clock, to go on within that of an earlier step.
        """
        if self._is_closed:
            raise StoreUnavailable(f"{operation}: the store is closed")
        until = until or asyncio.get_running_loop().time() + self._timeout_s
        try:
            async with asyncio.timeout_at(until), self._slots:
                yield until
        except DRIVER_ERRORS as exc:
            raise refusal(operation, exc) from exc

    async def run(self, script: Script, key: str, *arguments: Argument) -> Any:
        """Run *script* once. A server that does not know it has not executed it, and is sent the text."""
        try:
            return await self._client.execute_command("EVALSHA", script.sha, 1, key, *arguments)
        except NoScriptError:
            return await self._client.execute_command("EVAL", script.text, 1, key, *arguments)

    async def read(self, *command: Argument) -> Any:
        """Send one reading command; a key of a foreign type answers with its error."""
        try:
            return await self._client.execute_command(*command)
        except ResponseError as exc:
            if is_foreign(exc):
                return exc
            raise

    async def read_batch(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Send reading commands, `BATCH` a round trip, and answer each as `read` does."""
        replies: list[Any] = []
        for start in range(0, len(commands), BATCH):
            pipe: Any = self._client.pipeline(transaction=False)
            for command in commands[start : start + BATCH]:
                pipe.execute_command(*command)
            replies += await pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not is_foreign(reply):
                raise reply
        return replies

    async def twice(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Await *attempt*, which only reads, and once more if it had no answer in half the budget."""
        try:
            async with asyncio.timeout(self._timeout_s / 2):
                return await attempt()
        except DRIVER_ERRORS as exc:
            if type(refusal("", exc)) is not StoreUnavailable:
                raise
        if isinstance(self._client, aioredis.RedisCluster):
            # After a failed batch redis-py neither asks who owns a slot now nor doubts its other connections.
            await self._client.nodes_manager.initialize()
        return await attempt()

    async def scan(self, pattern: str) -> AsyncGenerator[list[bytes], None]:
        """Yield pages of the keys that match *pattern*, from every primary node. A key may come twice."""
        for node in await self._primaries():
            cursor = 0
            while True:
                async with self.budget("scan"):
                    cursor, keys = await node.execute_command(
                        "SCAN", cursor, "MATCH", pattern, "COUNT", 4 * BATCH
                    )
                yield keys
                if cursor == 0:
                    break

    async def _primaries(self) -> Sequence[aioredis.Redis | ClusterNode]:
        if isinstance(self._client, aioredis.Redis):
            return [self._client]
        async with self.budget("scan"):
            await self._client.initialize()
        return self._client.get_primaries()

    async def messages(self, channel: str) -> AsyncGenerator[bytes, None]:
        """Yield what is published on *channel* until the connection breaks or the store is closed."""
        async with self.budget("gone"):
            await self._client.initialize()
            pubsub: Any = self._client.pubsub()
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
            raise refusal("gone", exc) from exc
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
        """End what waits for messages and close every connection. Idempotent."""
        self._is_closed = True
        for future in self._waits:
            future.cancel()
        await self._client.aclose()
        if isinstance(self._client, aioredis.RedisCluster):
            # After an error the client counts as not initialised, and its own aclose() leaves the nodes open.
            await self._client.nodes_manager.aclose()
            await self._client.nodes_manager.aclose("startup_nodes")
