"""`EndedSessions`: the handles of sessions that ended, also by other processes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from typing import NamedTuple

from stormcellar.stores.errors import StoreUnavailable
from stormcellar.stores.records import Handle
from stormcellar.stores.sqlite.worker import Worker

POLL_S = 0.5
"""How late the end of a session in another process is noticed. In this process it is noticed at once."""

PAGE = 1000


class EndedSessions:
    """Reads the table `ended`: twice a second while somebody listens, and after each change of our own.

    SQLite has no message for a change by another process.
    """

    def __init__(self, reader: Worker, prefix: str) -> None:
        self._reader = reader
        self._prefix = prefix
        self._wakers: set[asyncio.Event] = set()
        self._is_closed = False

    def wake(self) -> None:
        """Let each listener read the table now."""
        for waker in self._wakers:
            waker.set()

    def close(self) -> None:
        """End every iterator of `handles`. Idempotent."""
        self._is_closed = True
        self.wake()

    async def handles(self) -> AsyncGenerator[Handle | None, None]:
        """Yield None, then each handle since; None again where some are missing."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        last: int | None = None
        try:
            while not self._is_closed:
                waker.clear()
                news = await self._since(last)
                if news is not None:
                    if news.is_incomplete:
                        yield None
                    for handle in news.handles:
                        yield handle
                    last = news.last
                if news is None or not news.handles:
                    await _wait(waker)
        finally:
            self._wakers.discard(waker)

    async def _since(self, last: int | None) -> _News | None:
        """Return what is new, or None if the store does not answer: then it is read later."""
        try:
            return await self._reader.run("gone", lambda db: _news(db, self._prefix, last))
        except StoreUnavailable:
            return None


class _News(NamedTuple):
    """The handles after a number of the table `ended`, in order."""

    handles: list[Handle]
    last: int
    """The number to continue from."""
    is_incomplete: bool
    """Whether some handles before these are missing."""


def _news(db: sqlite3.Connection, prefix: str, last: int | None) -> _News:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ended'").fetchone()
    newest = row[0] if row else 0
    if newest == last:
        return _News([], newest, False)
    (oldest,) = db.execute("SELECT coalesce(min(number), ?) FROM ended", (newest + 1,)).fetchone()
    # A smaller number is that of another file. A gap means that rows were removed, being ten minutes old.
    if last is None or newest < last or oldest > last + 1:
        return _News([], newest, True)
    query = "SELECT number, prefix, handle FROM ended WHERE number > ? ORDER BY number LIMIT ?"
    rows = db.execute(query, (last, PAGE)).fetchall()
    return _News([handle for _, owner, handle in rows if owner == prefix], rows[-1][0], False)


async def _wait(waker: asyncio.Event) -> None:
    """Wait for *waker*, for `POLL_S` at most."""
    try:
        async with asyncio.timeout(POLL_S):
            await waker.wait()
    except TimeoutError:
        return
