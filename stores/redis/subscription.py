"""A subscription to one channel, on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from stormcellar.stores.redis.connections import Connections

PING_AFTER_S = 3.0
"""How long a subscription without a message is taken to be in order."""


class Subscription:
    """What redis-py's subscriber receives, and whether its connection still carries anything.

    Args:
        pubsub: Subscribed to one channel.
        primary: Returns what identifies the present primary.
        began_at: The primary at the beginning.
        answer_s: How long an answer to PING may take.
    """

    def __init__(
        self,
        pubsub: Any,
        *,
        primary: Callable[[], Awaitable[object]],
        began_at: object,
        answer_s: float,
    ) -> None:
        self._pubsub = pubsub
        self._primary = primary
        self._began_at = began_at
        self._answer_s = answer_s

    async def next(self) -> bytes:
        """Return the data of the next message.

        Raises:
            ConnectionError: Another server is the primary now.
            TimeoutError: There was no message for a while, and then no answer to a PING.
        """
        cancellation = Cancellation()
        while True:
            message = await self._pubsub.get_message(timeout=PING_AFTER_S)
            cancellation.check()
            if message is None:
                if await self._primary() != self._began_at:
                    raise ConnectionError("another server is the primary")
                message = await self.ping()
            if message["type"] == "message":
                data: bytes = message["data"]
                return data

    async def ping(self) -> Any:
        """Send a PING, and return what comes next, the answer or a message.

        Raises:
            TimeoutError: Nothing came.
        """
        await self._pubsub.ping()
        message = await self._pubsub.get_message(timeout=self._answer_s)
        if message is None:
            raise TimeoutError("no answer to PING")
        return message


class Cancellation:
    """Notices that the present task was cancelled although it goes on.

    redis-py sends with `asyncio.wait_for`, which in Python 3.11 loses a cancellation that arrives when the
    data has just been sent (github.com/python/cpython/issues/86296).
    """

    def __init__(self) -> None:
        self._before = _times_cancelled()

    def check(self) -> None:
        """Raise CancelledError if the task was cancelled since this object was made."""
        if _times_cancelled() > self._before:
            raise asyncio.CancelledError


def _times_cancelled() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@asynccontextmanager
async def subscribed(
    connections: Connections, channel: str, *, timeout_s: float
) -> AsyncIterator[Subscription]:
    """Subscribe to *channel*; the block begins when the server has confirmed that."""
    cancellation = Cancellation()
    primary = partial(connections.primary, limit_s=timeout_s)
    # Before the connection is made: if another one is named in between, `next` notices it.
    began_at = await primary()
    async with asyncio.timeout(timeout_s):
        pubsub = await connections.pubsub()
    try:
        async with asyncio.timeout(timeout_s):
            await pubsub.subscribe(channel)
            await pubsub.get_message(timeout=None)
        cancellation.check()
        yield Subscription(pubsub, primary=primary, began_at=began_at, answer_s=timeout_s)
    finally:
        await pubsub.aclose()
