"""`Modifier`: one value of a session, replaced atomically against every other request."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from stormcellar.errors import SessionChanged
from stormcellar.sessions import json_values as values
from stormcellar.sessions.data_limits import decoded
from stormcellar.sessions.record_writer import Writer
from stormcellar.sessions.session import Session
from stormcellar.stores import Absent, Delta, Outcome, Store

PATIENCE_S = 2.0


class Modifier:
    """Reads, changes and writes by compare-and-set, until nobody was faster.

    Args:
        now_ms: Unix time in milliseconds.
    """

    def __init__(self, store: Store, writer: Writer, *, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._writer = writer
        self._now_ms = now_ms
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, session: Session) -> AsyncIterator[float]:
        """Let one change at a time through per session inside this process, so that those never collide.

        Yields when to give up, on the loop's clock.
        """
        until = asyncio.get_running_loop().time() + PATIENCE_S
        turn = self._turns.setdefault(session.handle, asyncio.Lock()) if session.handle else asyncio.Lock()
        try:
            async with asyncio.timeout_at(until):
                await turn.acquire()
        except TimeoutError:
            raise SessionChanged from None
        try:
            yield until
        finally:
            turn.release()

    async def replace(self, session: Session, key: str, change: Callable[[Any], Any], *, until: float) -> Any:
        """Return the new value of *key*; the caller holds `session.lock`, and the session has a record."""
        # The time is looked at between the attempts only: a write that is cut short may have happened.
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            assert session.record is not None and session.sid is not None
            raw = session.record.data.get(key)
            value = change(decoded(raw))
            outcome = await self._writer.apply(session, Delta({key: values.encode(value)}, expect={key: raw}))
            if outcome is Outcome.APPLIED:
                return value
            if outcome is Outcome.GONE or loop.time() > until:
                raise SessionChanged
            attempt += 1
            # Jitter, so that two processes that met once do not meet again in step.
            await asyncio.sleep(random.uniform(0, 0.001 * 2 ** min(attempt, 6)))  # noqa: S311
            found = await self._store.load(session.sid.credential, now_ms=self._now_ms())
            if isinstance(found, Absent):
                raise SessionChanged
            session.saw(key, found.data.get(key))
