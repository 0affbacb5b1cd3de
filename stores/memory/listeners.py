"""Announcements of ended sessions, within this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from stormcellar.stores.records import Handle

WAITING_PER_LISTENER = 10_000
"""Announcements queued for a listener that does not read; later ones are dropped, as `gone` allows."""


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

    async def handles(self) -> AsyncGenerator[Handle, None]:
        """Yield each handle announced from the first `anext` on, until `close`."""
        if self._is_closed:
            return
        queue: asyncio.Queue[Handle | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while (handle := await queue.get()) is not None:
                yield handle
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """End every iterator of `handles`. Idempotent."""
        self._is_closed = True
        for queue in self._queues:
            queue.put_nowait(None)
