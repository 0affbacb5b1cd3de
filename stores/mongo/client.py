"""The client of `MongoStore`: connecting, time-outs and errors of a call, and the change stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import pymongo
from bson.errors import BSONError, InvalidDocument
from pymongo import AsyncMongoClient
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_preferences import ReadPreference
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from stormcellar.stores.errors import DuplicateSession, StoreError, StoreFull, StoreRefused, StoreUnavailable
from stormcellar.stores.mongo.documents import CODEC, ENDED_SESSIONS, Document
from stormcellar.stores.records import Handle, StoreOptions

T = TypeVar("T")

DATABASE = "stormcellar"
DRIVER_SHARE = 0.9
# The share of its time-out, 10 ms of 2 s, that a call waits for running batches to end.
WAIT_SHARE = 0.005
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0

# https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
REFUSED = {
    13: "Unauthorized",
    18: "AuthenticationFailed",
    73: "InvalidNamespace",
    85: "IndexOptionsConflict",
    86: "IndexKeySpecsConflict",
}
FULL = {14031: "OutOfDiskSpace"}
TOO_LARGE = {10334: "BSONObjectTooLarge", 17419: "after an update", 17420: "to insert"}
ATLAS_ERROR = 8000

DRIVER_ERRORS = (PyMongoError, BSONError, OSError)
"""What a call can raise: errors of the driver, and of the system, time-outs included."""


def connect(url: str, options: StoreOptions) -> AsyncCollection[Document]:
    """Return the collection for *url* and the prefix, without any I/O; it connects on first use.

    Raises:
        ValueError: One line about a bad *url*, without any part of a password.
    """
    try:
        parts = parse_uri(url, warn=False)
        if parts["collection"] is not None:
            raise ValueError("the path must not name a collection; the store prefix determines it")
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            url,
            connect=False,
            connectTimeoutMS=int(options.connect_timeout_s * 1000),
            serverSelectionTimeoutMS=int(options.connect_timeout_s * 1000),
            retryReads=False,
            retryWrites=True,
            # A failed login marks the server as unknown until the monitor's next check, and all calls wait
            # for it. With streaming that takes up to ten seconds, with polling half a second.
            serverMonitoringMode="poll",
        )
        return client[parts["database"] or DATABASE].get_collection(
            collection_name(options.prefix),
            codec_options=CODEC,
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority"),
        )
    except (ValueError, OSError, PyMongoError) as exc:
        raise ValueError(f"bad MongoDB URL: {_reason(url, exc)}") from None


def _reason(url: str, exc: Exception) -> str:
    if "@" in url or "password" in url.lower():
        return "it does not parse; percent-encode the user and the password, and check the options"
    return " ".join(str(exc).split())


def collection_name(prefix: str) -> str:
    """Return the collection name for *prefix*, different for each."""
    # MongoDB refuses a dot at either end, two in a row, and one after "system".
    return prefix.replace("%", "%25").replace(".", "%2E") + "_sessions"


class time_limit:
    """Limit the time of a block, and raise one of `DRIVER_ERRORS` when it is over."""

    def __init__(self, timeout_s: float) -> None:
        # The driver's limit covers its retries, is sent to the server, and has the better error message, so
        # it is the shorter one. Ours holds even where the driver waits without a limit.
        self._ours = asyncio.timeout(timeout_s)
        self._drivers = pymongo.timeout(DRIVER_SHARE * timeout_s)

    async def __aenter__(self) -> None:
        await self._ours.__aenter__()
        self._drivers.__enter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        self._drivers.__exit__(*exc_info)
        await self._ours.__aexit__(*exc_info)


@asynccontextmanager
async def calling(operation: str, *, timeout_s: float) -> AsyncIterator[None]:
    """Limit the block to the time of one call, and raise its errors as the store's."""
    try:
        async with time_limit(timeout_s):
            yield
    except DRIVER_ERRORS as exc:
        raise _store_error(operation, exc) from exc


async def retry_read(attempt: Callable[[], Awaitable[T]]) -> T:
    """Await *attempt*, and once more if the connection was lost."""
    try:
        return await attempt()
    except AutoReconnect as exc:
        if exc.timeout:
            raise
    return await attempt()


def result_or_raise(operation: str, answer: T | BaseException) -> T:
    """Return *answer*, or raise it if it is an exception, a driver's one as the store's."""
    if isinstance(answer, DRIVER_ERRORS):
        raise _store_error(operation, answer) from answer
    if isinstance(answer, BaseException):
        raise answer
    return answer


def is_full(exc: Exception) -> bool:
    """Return whether *exc* reports that the server has no space."""
    code = exc.code if isinstance(exc, OperationFailure) else None
    # Atlas uses one code for an exhausted quota and for wrong credentials.
    return code in FULL or (code == ATLAS_ERROR and "quota" in str(exc))


def _store_error(operation: str, exc: Exception) -> Exception:
    """Return the error that a store raises for the driver's *exc*."""
    code = exc.code if isinstance(exc, OperationFailure) else None
    if isinstance(exc, DuplicateKeyError):
        return DuplicateSession(operation)
    if isinstance(exc, InvalidDocument) or code in TOO_LARGE:
        return ValueError(f"{operation}: the session does not fit a MongoDB document")
    if is_full(exc):
        return StoreFull(operation)
    if code in REFUSED or code == ATLAS_ERROR or isinstance(exc, ConfigurationError):
        return StoreRefused(operation)
    return StoreUnavailable(operation)


class EndedSessions:
    """The sessions that end, read from change streams, which a standalone server does not have.

    After an error each listener opens the stream again, with a pause that doubles up to `LONGEST_PAUSE_S`. So
    it also starts to receive once a standalone server has become a replica set.
    """

    def __init__(self, sessions: AsyncCollection[Document], *, timeout_s: float) -> None:
        self._sessions = sessions
        self._timeout_s = timeout_s
        self._is_closed = False
        self._waits: set[asyncio.Future[Any]] = set()

    async def handles(self) -> AsyncGenerator[Handle, None]:
        """Yield the handle of each session that ends, until `aclose`."""
        stream: AsyncChangeStream[Document] | None = None
        pause_s = FIRST_PAUSE_S
        try:
            while not self._is_closed:
                try:
                    # A stream that is still alive resumes by itself, after its last event.
                    if stream is None or not stream.alive:
                        stream = await self._unless_closed(self._watch(stream))
                    event = await self._unless_closed(self._next(stream)) if stream else None
                except StoreError:
                    await self._unless_closed(asyncio.sleep(pause_s))
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                    continue
                pause_s = FIRST_PAUSE_S
                if event is not None and "documentKey" in event:
                    yield Handle(event["documentKey"]["_id"])
        finally:
            if stream is not None:
                with suppress(PyMongoError):
                    await stream.close()

    async def aclose(self) -> None:
        """End every listener, also one that is waiting for an event."""
        self._is_closed = True
        waits = list(self._waits)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _watch(self, last: AsyncChangeStream[Document] | None) -> AsyncChangeStream[Document]:
        """Open a stream that continues where *last* stopped, or from now if the server lost that point."""
        # Half of the time-out, so that waiting for an event does not look like a lost reply.
        await_ms = max(1, int(self._timeout_s * 500))
        async with calling("gone", timeout_s=self._timeout_s):
            if last is not None:
                with suppress(OperationFailure):
                    return await self._sessions.watch(
                        ENDED_SESSIONS, max_await_time_ms=await_ms, resume_after=last.resume_token
                    )
            return await self._sessions.watch(ENDED_SESSIONS, max_await_time_ms=await_ms)

    async def _next(self, stream: AsyncChangeStream[Document]) -> Document | None:
        async with calling("gone", timeout_s=self._timeout_s):
            return await stream.try_next()

    async def _unless_closed(self, work: Awaitable[T]) -> T | None:
        """Return the result of *work*, or None once the listeners must end."""
        wait = asyncio.ensure_future(work)
        self._waits.add(wait)
        try:
            # Not `await wait`: a cancellation that the driver swallows as its reply arrives would be lost.
            await asyncio.wait([wait])
        finally:
            self._waits.discard(wait)
            if not wait.done():
                wait.cancel()
                await asyncio.gather(wait, return_exceptions=True)
        return None if wait.cancelled() else wait.result()
