"""A subscription to one channel, on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stormcellar.stores.redis.connections import Connections

PING_AFTER_S = 3.0
"""How long a subscription without a message is taken to be in order."""


class Subscription:
    """What redis-py's subscriber receives, and whether its connection still carries anything.

    Args:
        connections: Where *pubsub* comes from.
        pubsub: Subscribed to one channel.
        answer_s: How long an answer to PING may take.
    """

    def __init__(self, connections: Connections, pubsub: Any, *, answer_s: float) -> None:
        self._connections = connections
        self._pubsub = pubsub
        self._answer_s = answer_s

    async def next(self) -> bytes:
        """Return the data of the next message.

        Raises:
            ConnectionError: The server is not the primary any more.
            TimeoutError: There was no message for a while, and then no answer to a PING.
        """
        while True:
            message = await self._pubsub.get_message(timeout=PING_AFTER_S)
            if message is None:
                if await self._connections.has_moved(limit_s=self._answer_s):
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


@asynccontextmanager
async def subscribed(
    connections: Connections, channel: str, *, timeout_s: float
) -> AsyncIterator[Subscription]:
    """Subscribe to *channel*; the block begins when the server has confirmed that."""
    async with asyncio.timeout(timeout_s):
        pubsub = await connections.pubsub()
    try:
        async with asyncio.timeout(timeout_s):
            await pubsub.subscribe(channel)
            await pubsub.get_message(timeout=None)
        yield Subscription(connections, pubsub, answer_s=timeout_s)
    finally:
        await pubsub.aclose()
