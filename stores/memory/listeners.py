"""Announcements of ended sessions, within this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from stormcellar.stores.records import Handle

WAITING_PER_LISTENER = 10_000
"""Announcements queued for a listener that does not read; one None stands for all later ones."""


class Listeners:
    """One queue for each listener; `announce` fills all of them."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Handle | None]] = set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._queues)

    def announce(self, handle: Handle) -> None:
        """Queue *handle* for every listener."""
        for queue in self._queues:
            if queue.qsize() < WAITING_PER_LISTENER:
                queue.put_nowait(handle)
            elif queue.qsize() == WAITING_PER_LISTENER:
                queue.put_nowait(None)

    async def handles(self) -> AsyncGenerator[Handle | None, None]:
        """Yield None, then each handle announced since, until `close`; None again where some are missing."""
        if self._is_closed:
            return
        queue: asyncio.Queue[Handle | None] = asyncio.Queue()
        queue.put_nowait(None)
        self._queues.add(queue)
        try:
            while True:
                handle = await queue.get()
                if self._is_closed:
                    return
                yield handle
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """End every iterator of `handles`. Idempotent."""
        self._is_closed = True
        for queue in self._queues:
            queue.put_nowait(None)
