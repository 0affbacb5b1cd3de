"""How the Redis store talks to its server: batches, budget, retries and errors.

A mutation is sent at most once, so redis-py's own retries are off everywhere; reads are retried once, here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import hiredis
from redis import asyncio as aioredis
from redis.asyncio.cluster import ClusterNode
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
from stormcellar.stores.redis.cluster import ClusterLines
from stormcellar.stores.redis.connections import DRIVER_ERRORS, Command, Lines, ServerLines
from stormcellar.stores.redis.records import Argument
from stormcellar.stores.redis.scripts import Script
from stormcellar.stores.redis.url import Client

T = TypeVar("T")

BATCH = 64
"""How many commands a batch holds at most."""

# Typed as if a command had one argument only.
_pack: Any = hiredis.pack_command


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


def is_outage(reply: object) -> bool:
    """Return whether *reply* is an error after which asking again may have an answer."""
    if not isinstance(reply, Exception) or isinstance(reply, NoScriptError) or is_foreign(reply):
        return False
    return type(refusal("", reply)) is StoreUnavailable


class Wire:
    """Sends commands within the budget of a call, and turns the driver's errors into the store's.

    What is asked in one turn of the loop leaves together, reads and changes apart: no read waits for a slow
    script, and a batch of reads may be sent again.
    """

    def __init__(self, client: Client, *, timeout_s: float) -> None:
        self.is_cluster = isinstance(client, aioredis.RedisCluster)
        """Whether a script is limited to keys of one slot."""
        self._client = client
        self._timeout_s = timeout_s
        self._lines: Lines = (
            ServerLines(client) if isinstance(client, aioredis.Redis) else ClusterLines(client)
        )
        self._reads = Batches(self._send_reads, max_size=BATCH)
        self._changes = Batches(self._send_changes, max_size=BATCH)
        self._is_closed = False
        self._waits: set[asyncio.Future[Any]] = set()

    async def read(self, operation: str, name: str, key: str, *arguments: Argument) -> Any:
        """Ask with a command that only reads; a key of a foreign type answers with its error."""
        reply = await self._ask(self._reads, operation, key, (name, key, *arguments))
        return reply if type(reply) is list else _checked(operation, reply)

    async def read_each(
        self, operation: str, name: str, keys: Sequence[str], *arguments: Argument
    ) -> list[Any]:
        """Do so for each of *keys*, a batch at a time."""
        replies: list[Any] = []
        for start in range(0, len(keys), BATCH):
            asked = [
                self._ask(self._reads, operation, key, (name, key, *arguments))
                for key in keys[start : start + BATCH]
            ]
            replies += [_checked(operation, await reply) for reply in asked]
        return replies

    async def change(self, operation: str, name: str, key: str, *arguments: Argument) -> Any:
        """Send a command that writes, once; a key of a foreign type answers with its error."""
        return _checked(operation, await self._ask(self._changes, operation, key, (name, key, *arguments)))

    async def run(self, operation: str, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """Run *script*, once. A server that does not know it has not executed it, and is sent the text."""
        return await self._run(self._changes, operation, script, keys, arguments)

    async def run_as_read(
        self, operation: str, script: Script, keys: Sequence[str], *arguments: Argument
    ) -> Any:
        """Run *script*, which is known to find nothing to change, as if it only read."""
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
        reply = await self._ask(batches, operation, keys[0], ("EVALSHA", script.sha, *rest))
        if isinstance(reply, NoScriptError):
            async with self.within(operation, until=until):
                reply = await self._ask(batches, operation, keys[0], ("EVAL", script.text, *rest))
        if isinstance(reply, Exception):
            raise refusal(operation, reply) from reply
        return reply

    def _ask(
        self,
        batches: Batches[Command, Any],
        operation: str,
        key: str,
        command: tuple[Argument, ...],
    ) -> asyncio.Future[Any]:
        """Return the future reply, or error of the driver, which has a budget of its own."""
        if self._is_closed:
            raise StoreUnavailable(f"{operation}: the store is closed")
        return batches.submit((_pack(command), key, command))

    async def _send_changes(self, commands: Sequence[Command]) -> list[Any]:
        return await self._lines.send(commands, until=self.until())

    async def _send_reads(self, commands: Sequence[Command]) -> list[Any]:
        """Send them, and once more those that have no answer in half the budget."""
        until = self.until()
        replies = await self._lines.send(commands, until=until - self._timeout_s / 2)
        again = [number for number, reply in enumerate(replies) if is_outage(reply)]
        if again and not self._is_closed:
            second = await self._lines.send([commands[number] for number in again], until=until)
            for number, reply in zip(again, second, strict=True):
                replies[number] = reply
        return replies

    def until(self) -> float:
        """Return when the budget of a call ends that begins now, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._timeout_s

    @asynccontextmanager
    async def within(self, operation: str, *, until: float | None = None) -> AsyncIterator[float]:
        """Bound what happens inside, if that is more than one question, and map what it raises.

        Args:
            until: When the budget ends on the loop's clock, to go on within that of an earlier step.
        """
        if self._is_closed:
            raise StoreUnavailable(f"{operation}: the store is closed")
        until = until or self.until()
        try:
            async with asyncio.timeout_at(until):
                yield until
        except DRIVER_ERRORS as exc:
            raise refusal(operation, exc) from exc

    async def info(self, section: str) -> dict[str, Any]:
        """Return what the server says of itself."""
        async with self.within("info"), self._lines.turns:
            found: dict[str, Any] = await self._client.execute_command("INFO", section)
        return found

    async def scan(self, pattern: str) -> AsyncGenerator[list[bytes], None]:
        """Yield pages of the keys that match *pattern*, from every primary node. A key may come twice."""
        for node in await self._primaries():
            cursor = 0
            while True:
                async with self.within("scan"), self._lines.turns:
                    cursor, keys = await node.execute_command(
                        "SCAN", cursor, "MATCH", pattern, "COUNT", 4 * BATCH
                    )
                yield keys
                if cursor == 0:
                    break

    async def _primaries(self) -> Sequence[aioredis.Redis | ClusterNode]:
        if isinstance(self._client, aioredis.Redis):
            return [self._client]
        async with self.within("scan"):
            await self._client.initialize()
        return self._client.get_primaries()

    async def messages(self, channel: str) -> AsyncGenerator[bytes, None]:
        """Yield what is published on *channel* until the connection breaks or the store is closed."""
        async with self.within("gone"):
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
        await self._lines.aclose()
        for batches in (self._reads, self._changes):
            await batches.drain()
        await self._lines.aclose()  # what a batch was just opening


def _checked(operation: str, reply: Any) -> Any:
    if isinstance(reply, Exception) and not is_foreign(reply):
        raise refusal(operation, reply) from reply
    return reply
