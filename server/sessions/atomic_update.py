"""`AtomicUpdate`: replaces one value of a session atomically against every other request."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakValueDictionary

from stormcellar.errors import SessionChanged
from stormcellar.sessions.data import json_values
from stormcellar.sessions.record_writer import RecordWriter
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Delta, Outcome

TIMEOUT_S = 2.0


class AtomicUpdate:
    """Reads, changes and writes by compare-and-set, again and again until no other request was faster."""

    def __init__(self, writer: RecordWriter) -> None:
        self._writer = writer
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def exclusive(self, state: SessionState) -> AsyncIterator[float]:
        """Allow one update at a time per session inside this process, so that those never collide.

        Yields the time of the loop's clock at which to give up.

        Raises:
            SessionChanged: Other updates took two seconds.
        """
        until = asyncio.get_running_loop().time() + TIMEOUT_S
        lock = self._locks.setdefault(state.handle, asyncio.Lock()) if state.handle else asyncio.Lock()
        try:
            async with asyncio.timeout_at(until):
                await lock.acquire()
        except TimeoutError:
            raise SessionChanged from None
        try:
            yield until
        finally:
            lock.release()

    async def replace(
        self, state: SessionState, key: str, change: Callable[[Any], Any], *, until: float
    ) -> Any:
        """Return the new value of *key*. The caller holds `state.lock`, and the session has a record."""
        # The time is checked between the attempts only: a write that is cancelled may have happened.
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            assert state.record is not None
            raw = state.record.data.get(key)
            value = change(_decoded(raw))
            delta = Delta({key: json_values.encode(value)}, expect={key: raw})
            outcome = await self._writer.apply(state, delta)
            if outcome is Outcome.APPLIED:
                return value
            if outcome is Outcome.GONE or loop.time() > until:
                raise SessionChanged
            attempt += 1
            # Jitter, so that two processes that collided do not collide again.
            await asyncio.sleep(random.uniform(0, 0.001 * 2 ** min(attempt, 6)))  # noqa: S311
            found = await self._writer.read(state)
            if found is None:
                raise SessionChanged
            state.set_stored_value(key, found.data.get(key))


def _decoded(raw: bytes | None) -> Any:
    """Return the value of *raw*; None if it is absent or not JSON."""
    with suppress(json_values.NotJSON):
        return json_values.decode(raw) if raw is not None else None
    return None
