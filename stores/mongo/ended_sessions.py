"""`EndedSessions`: the sessions that end, read from change streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from stormcellar.stores.errors import StoreError
from stormcellar.stores.mongo.calls import Calls
from stormcellar.stores.mongo.documents import ENDED_SESSIONS, Document
from stormcellar.stores.records import Handle

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
BEGUN: Document = {}
"""Returned by `Stream.next` in place of an event: the stream begins at this moment."""

# How long the server waits for an event. Closing the store waits for the server's reply, for so long at most.
LONGEST_WAIT_S = 0.5


class EndedSessions:
    """The sessions that end, read from change streams, which a standalone server does not have.

    After an error each listener opens the stream again, with a pause that doubles up to `LONGEST_PAUSE_S`. So
    it also starts to receive once a standalone server has become a replica set.
    """

    def __init__(self, sessions: AsyncCollection[Document], calls: Calls) -> None:
        self._sessions = sessions
        self._calls = calls
        self._is_closed = False
        self._waits: set[asyncio.Future[Any]] = set()

    async def handles(self) -> AsyncGenerator[Handle | None, None]:
        """Yield None for each stream that begins anew, and the handle of each session that ends."""
        # Half of the time-out, so that waiting for an event does not look like a lost reply.
        stream = Stream(self._sessions, wait_s=min(LONGEST_WAIT_S, self._calls.timeout_s / 2))
        pause_s = FIRST_PAUSE_S
        try:
            while not self._is_closed:
                try:
                    event = await self._unless_closed(self._calls.run("gone", stream.next))
                except StoreError:
                    await self._unless_closed(asyncio.sleep(pause_s))
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                    continue
                pause_s = FIRST_PAUSE_S
                if event is BEGUN:
                    yield None
                elif event is not None and "documentKey" in event:
                    yield Handle(event["documentKey"]["_id"])
        finally:
            self._calls.start(stream.close)

    async def aclose(self) -> None:
        """End every listener, also one that is waiting for an event."""
        self._is_closed = True
        waits = list(self._waits)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _unless_closed(self, work: Awaitable[T]) -> T | None:
        """Return the result of *work*, or None once the listeners must end."""
        wait = asyncio.ensure_future(work)
        self._waits.add(wait)
        try:
            await asyncio.wait([wait])
        finally:
            self._waits.discard(wait)
            wait.cancel()
        return None if wait.cancelled() else wait.result()


class Stream:
    """A change stream, opened when it is first read. One call at a time uses it, so `close` comes last.

    Args:
        wait_s: How long the server waits for an event.
    """

    def __init__(self, sessions: AsyncCollection[Document], *, wait_s: float) -> None:
        self._sessions = sessions
        self._wait_ms = max(1, int(wait_s * 1000))
        self._stream: AsyncChangeStream[Document] | None = None
        self._lock = asyncio.Lock()

    async def next(self) -> Document | None:
        """Return the next event, None if there is none yet, or BEGUN if events before may be missing."""
        async with self._lock:
            # A stream that is still alive resumes by itself, after its last event.
            if self._stream is None or not self._stream.alive:
                self._stream = await self._resumed()
                if self._stream is None:
                    self._stream = await self._watch()
                    return BEGUN
            try:
                return await self._stream.try_next()
            except OperationFailure:
                # After a first attempt to resume that failed, PyMongo never says that the stream is over.
                await self._stream.close()
                raise

    async def close(self) -> None:
        """Close the stream, after a call that still reads it."""
        async with self._lock:
            if self._stream is not None:
                await self._stream.close()

    async def _resumed(self) -> AsyncChangeStream[Document] | None:
        """Return a stream that continues where the last one stopped; None if the server has lost that."""
        if self._stream is None:
            return None
        with suppress(OperationFailure):
            return await self._watch(resume_after=self._stream.resume_token)
        return None

    async def _watch(self, **options: Any) -> AsyncChangeStream[Document]:
        return await self._sessions.watch(ENDED_SESSIONS, max_await_time_ms=self._wait_ms, **options)
