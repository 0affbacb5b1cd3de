"""How `MongoStore` reaches its server: the client, the limits and faults of a call, the push of endings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
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
from stormcellar.stores.mongo.documents import CODEC, ENDINGS, Document
from stormcellar.stores.records import Handle, StoreOptions

T = TypeVar("T")

DATABASE = "stormcellar"
DRIVER_SHARE = 0.9
# A call waits so much of its time, 10 ms of 2 s, for those before it to come back.
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

FAULTS = (PyMongoError, BSONError, OSError)
"""What goes wrong in a call: the driver's errors, and those of the system, time-outs among them."""


def connect(url: str, options: StoreOptions) -> AsyncCollection[Document]:
    """Return the collection that *url* and the prefix name, without any I/O; it connects on first use.

    Raises:
        ValueError: One line about a bad *url*, with nothing of a password in it.
    """
    try:
        parts = parse_uri(url, warn=False)
        if parts["collection"] is not None:
            raise ValueError("the path names a collection; the store prefix does that")
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            url,
            connect=False,
            connectTimeoutMS=int(options.connect_timeout_s * 1000),
            serverSelectionTimeoutMS=int(options.connect_timeout_s * 1000),
            retryReads=False,
            retryWrites=True,
            # A connection that may not log in makes the server unknown until the monitor's next look. While
            # streaming that is up to ten seconds away, and all calls wait; by polling it is half a second.
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
        return "it does not parse; user name and password must be percent-encoded, options as documented"
    return " ".join(str(exc).split())


def collection_name(prefix: str) -> str:
    """Return a collection name of its own for every *prefix*."""
    # A dot is refused at either end, in pairs, and after "system".
    return prefix.replace("%", "%25").replace(".", "%2E") + "_sessions"


class limited:
    """Give a block so much time, and raise one of `FAULTS` when it is over."""

    def __init__(self, timeout_s: float) -> None:
        # The driver's limit covers its retries and is told to the server, and its error says more, so it
        # comes first; ours holds whatever the driver waits for.
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
    """Give the block the time of one call, and raise what goes wrong in it as a store's error."""
    try:
        async with limited(timeout_s):
            yield
    except FAULTS as exc:
        raise _fault(operation, exc) from exc


async def read(attempt: Callable[[], Awaitable[T]]) -> T:
    """Await *attempt*, and once more if the connection was lost."""
    try:
        return await attempt()
    except AutoReconnect as exc:
        if exc.timeout:
            raise
    return await attempt()


def answered(operation: str, answer: T | BaseException) -> T:
    """Return *answer*; raise it, as a store's error if it is a fault."""
    if isinstance(answer, FAULTS):
        raise _fault(operation, answer) from answer
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _fault(operation: str, exc: Exception) -> Exception:
    """Return what a store raises in the place of the driver's *exc*."""
    code = exc.code if isinstance(exc, OperationFailure) else None
    if isinstance(exc, DuplicateKeyError):
        return DuplicateSession(operation)
    if isinstance(exc, InvalidDocument) or code in TOO_LARGE:
        return ValueError(f"{operation}: the session does not fit a MongoDB document")
    # Atlas has one code for a quota that is used up and for wrong credentials.
    if code in FULL or (code == ATLAS_ERROR and "quota" in str(exc)):
        return StoreFull(operation)
    if code in REFUSED or code == ATLAS_ERROR or isinstance(exc, ConfigurationError):
        return StoreRefused(operation)
    return StoreUnavailable(operation)


class Endings:
    """The sessions that end, heard through change streams; a standalone server has none to tell.

    Every listener tries again after a fault, soon at first and every `LONGEST_PAUSE_S` in the end, so it
    also starts to hear once a standalone server has become a replica set.
    """

    def __init__(self, sessions: AsyncCollection[Document], *, timeout_s: float) -> None:
        self._sessions = sessions
        self._timeout_s = timeout_s
        self._is_closed = False
        self._waits: set[asyncio.Future[Any]] = set()

    async def handles(self) -> AsyncIterator[Handle]:
        """Yield each handle that ends, until `aclose`."""
        stream: AsyncChangeStream[Document] | None = None
        pause_s = FIRST_PAUSE_S
        try:
            while not self._is_closed:
                try:
                    # A stream that is still alive resumes by itself, after the last event it gave.
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
        """End every listener, also one that waits for news."""
        self._is_closed = True
        waits = list(self._waits)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    async def _watch(self, last: AsyncChangeStream[Document] | None) -> AsyncChangeStream[Document]:
        """Open a stream that goes on where *last* stopped, or from now if that is no longer known."""
        # Half the budget, so that a wait for news is not taken for a lost reply.
        await_ms = max(1, int(self._timeout_s * 500))
        async with calling("gone", timeout_s=self._timeout_s):
            if last is not None:
                with suppress(OperationFailure):
                    return await self._sessions.watch(
                        ENDINGS, max_await_time_ms=await_ms, resume_after=last.resume_token
                    )
            return await self._sessions.watch(ENDINGS, max_await_time_ms=await_ms)

    async def _next(self, stream: AsyncChangeStream[Document]) -> Document | None:
        async with calling("gone", timeout_s=self._timeout_s):
            return await stream.try_next()

    async def _unless_closed(self, work: Awaitable[T]) -> T | None:
        """Return the result of *work*, or None once the listeners are to end."""
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
