"""`BackgroundWork`: tasks that outlive the request that began them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from stormcellar.stores import StoreUnavailable
from stormcellar.stores.errors import log_text

log = logging.getLogger("stormcellar.sessions")


class BackgroundWork:
    """Tasks that a closed connection does not cancel. What they raise is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run *work* as a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finish)
        return task

    async def drain(self) -> None:
        """Wait until no task is running."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, StoreUnavailable):
            log.warning("background work failed: %s", log_text(error))
        else:
            log.warning("background work failed: %s", error, exc_info=error)
