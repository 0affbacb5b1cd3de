"""Sessions in MongoDB: one document each, in one collection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Self, TypeVar

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from stormcellar.stores.base import Announcing, Scannable
from stormcellar.stores.mongo import documents
from stormcellar.stores.mongo.calls import Calls, retry_read
from stormcellar.stores.mongo.client import connect, diagnosing
from stormcellar.stores.mongo.counters import MongoCounters
from stormcellar.stores.mongo.documents import Document
from stormcellar.stores.mongo.ended_sessions import EndedSessions
from stormcellar.stores.mongo.errors import is_full
from stormcellar.stores.mongo.indexes import BY_USER, SESSION_INDEXES, Indexes
from stormcellar.stores.mongo.loads import Loads
from stormcellar.stores.mongo.reader import Reader
from stormcellar.stores.mongo.rights import Rights
from stormcellar.stores.mongo.updates import Update, Updates, is_ordinary
from stormcellar.stores.records import (
    Absent,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    StoreOptions,
    Verifier,
    Why,
    check_user,
)

T = TypeVar("T")

PAGE = 500


class MongoStore(Announcing, Scannable):
    """Keeps sessions in a MongoDB collection; `stormcellar.stores.mongo.documents` shows a document.

    Majority writes, primary reads. One round trip for each operation, with the exceptions named here::

        create   insertOne(document); before the first one, createIndexes, see `Indexes.ensure`
        load     find({_id}); several in one iteration of the loop, 64 at most: find({_id: {$in}}); what the
                 reply of 16 MB has no room for: killCursors, and find({_id}) for each
        find     as load, in the same batches
        apply    updateOne({_id, live, accepts, holds}, {$set, $unset, $max: {seen, expires}}); if nothing
                 matched and *expect* is not empty, findOne({_id, live, accepts}) tells GONE from CONFLICT
        rotate   updateOne({_id, live, accepts, holds}, [{$set}]), with a grace {verifier} instead of accepts;
                 if nothing matched, the same findOne
        (both)   several in one iteration, 8 at most: one unordered bulkWrite of the same with upsert and
                 an inserted `_id` of false, so that an update that matches nothing is an error
        destroy  updateOne({_id, no tombstone}, [{$replaceWith: tombstone}]); on a full server deleteOne
        of_user  find({user, live}, without data) by the index on user; before the first, createIndexes
        states   find({_id: {$in}, live or a tombstone}, without data) for each 500 handles
        scan     find({_id: {$gt: last}, live}) by _id, 500 at a time
        gone     a change stream of tombstones, of deletes, and of updates of the verifier that leave no
                 previous one
        ping     find, insert, update and delete of a document that cannot exist; hello; once a change stream;
                 createIndexes(expires with a TTL, user), and collMod where the TTL has less slack; if
                 `counters` was called, the same for the tallies

    where live = {expires: {$gt: now}, every field of its type}, accepts = {$or: [{verifier}, {previous,
    grace_until: {$gt: now}}]}, holds = {data.<key>: value or {$exists: false}, ...}.

    `gone` needs a replica set; on a standalone server it yields nothing. It also yields the handle of what
    the TTL index removes, because a delete has no content: of a record an hour after its expiry, of a
    tombstone ten minutes after its destroy.

    At most two batches of loads run at a time, and two of updates; meanwhile later requests collect for the
    next batch, for 10 ms at most. A write of more than 1 MiB, whatever part of it is large, goes alone.

    On a replica set the driver may send a write again under the same transaction number, which the server
    applies once; a standalone server has no such numbers, so each write is sent once.
    """

    def __init__(self, sessions: AsyncCollection[Document], *, timeout_s: float) -> None:
        self._sessions = sessions
        self._calls = Calls(timeout_s)
        self._loads = Loads(sessions, timeout_s=timeout_s)
        self._updates = Updates(sessions, self._calls)
        self._ended = EndedSessions(sessions, self._calls)
        self._counters: MongoCounters | None = None
        self._indexes = Indexes(sessions, SESSION_INDEXES, self._calls)
        self._rights = Rights(sessions, is_watched=True)
        self._reader = Reader()

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Make a store for `mongodb://[user:password@]host[:port],.../[database][?options]`, or +srv."""
        return cls(connect(url, options), timeout_s=options.timeout_s)

    async def create(self, record: Record) -> None:
        """Insert *record*; see `Store.create`."""
        document = documents.to_document(record)

        async def call() -> None:
            await self._indexes.ensure()
            await self._sessions.insert_one(document)

        await self._calls.run("create", call)

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Return the live session, or why there is none; see `Store.load`."""
        handle, verifier = credential
        found = self._state(await self._loads.document(handle), verifier, now_ms)
        if isinstance(found, Record) and found.verifier != verifier:
            return Absent(Why.SUPERSEDED, found.rotated_ms)
        return found

    def _state(self, document: Document | None, verifier: Verifier, now_ms: int) -> Record | Absent:
        """Return the live session in *document*, with *verifier* if that is live, or why there is none."""
        if document is None:
            return Absent(Why.UNKNOWN)
        if (ended_ms := documents.ended_ms(document)) is not None:
            return Absent(Why.ENDED, ended_ms)
        record = self._reader.record(document)
        if record is None or record.expires_ms <= now_ms:
            return Absent(Why.UNKNOWN)
        if record.verifier == verifier or not documents.is_accepted(document, verifier, now_ms):
            return record
        return replace(record, verifier=verifier)

    async def find(self, handle: Handle, *, now_ms: int) -> Record | None:
        """Return the live session with its current verifier; see `Store.find`."""
        document = await self._loads.document(handle)
        if document is None or documents.ended_ms(document) is not None:
            return None
        record = self._reader.record(document)
        return record if record and record.expires_ms > now_ms else None

    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        """Write *delta* if the session is live; see `Store.apply`."""
        handle, verifier = credential
        target = {"_id": {"$eq": handle}, **documents.live(now_ms), **documents.accepts(verifier, now_ms)}
        change = documents.changes(delta, now_ms=now_ms, expires_ms=expires_ms)
        update = Update({**target, **documents.holds(delta)}, change)
        is_alone = not is_ordinary(credential, delta)
        begun_s = time.monotonic()
        if await self._updates.matched("apply", update, is_alone=is_alone):
            return Outcome.APPLIED
        if not delta.expect:
            return Outcome.GONE
        return await self._refusal("apply", credential, delta, now_ms, begun_s)

    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        """Replace the verifier and what goes with it; see `Store.rotate`."""
        handle, verifier = credential
        delta = rotation.delta
        has_grace = rotation.grace_ms > 0
        allowed = documents.has_current(verifier) if has_grace else documents.accepts(verifier, now_ms)
        target = {"_id": {"$eq": handle}, **documents.live(now_ms), **allowed}
        pipeline = documents.rotated(verifier, rotation)
        update = Update({**target, **documents.holds(delta)}, pipeline)
        is_alone = not is_ordinary(credential, delta, rotation)
        begun_s = time.monotonic()
        if await self._updates.matched("rotate", update, is_alone=is_alone):
            return Outcome.APPLIED
        if not (delta.expect or has_grace):
            return Outcome.GONE
        return await self._refusal("rotate", credential, delta, now_ms, begun_s)

    async def _refusal(
        self, operation: str, credential: Credential, delta: Delta, now_ms: int, begun_s: float
    ) -> Outcome:
        """Return why an update matched nothing, GONE or CONFLICT, within the remaining time of the call.

        Correct under concurrency, since the update changed nothing and a session that is not live stays so.
        Not live now: an update now would get GONE as well. Still live: it was live then, and an `expect` did
        not hold, or the verifier is in its grace, which a rotation with a grace does not accept. If neither
        is the case, the session had expired then, and a process with a slower clock has extended it since.
        """
        target = {**documents.live(now_ms), **documents.accepts(credential.verifier, now_ms)}
        query = {"_id": {"$eq": credential.handle}, **target}
        left_s = max(0.001, self._calls.timeout_s - (time.monotonic() - begun_s))
        document = await self._calls.run(
            operation, lambda: self._sessions.find_one(query, {"verifier": True}), timeout_s=left_s
        )
        if document is None:
            return Outcome.GONE
        is_in_grace = document["verifier"] != credential.verifier
        return Outcome.CONFLICT if delta.expect or is_in_grace else Outcome.GONE

    async def destroy(self, handle: Handle, *, now_ms: int) -> bool:
        """End the session whatever its verifier; see `Store.destroy`."""
        target = {"_id": {"$eq": handle}, **documents.NO_TOMBSTONE}

        async def call() -> bool:
            try:
                result = await self._sessions.update_one(target, documents.tombstone(now_ms))
            except OperationFailure as exc:
                if not is_full(exc):
                    raise
                return (await self._sessions.delete_one(target)).deleted_count > 0
            return result.matched_count > 0

        return await self._calls.run("destroy", call)

    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        """Return every live session of *user*; see `Store.of_user`."""
        check_user(user)
        query = documents.belongs_to(user, now_ms)

        async def attempt() -> list[Document]:
            # By the index on expires, a session whose expiry moves meanwhile would appear twice or not at
            # all.
            cursor = self._sessions.find(query, {"data": False}, hint=BY_USER, batch_size=PAGE)
            return await cursor.to_list()

        found = await self._read("of_user", lambda: self._indexes.use(attempt))
        return [record for document in found if (record := self._reader.record({**document, "data": {}}))]

    async def states(
        self, credentials: Iterable[Credential], *, now_ms: int
    ) -> dict[Credential, Record | Absent]:
        """Return what has become of the session of each of *credentials*; see `Announcing.states`."""
        wanted = set(credentials)
        handles = sorted({credential.handle for credential in wanted})

        async def attempt() -> dict[str, Document]:
            found: dict[str, Document] = {}
            for start in range(0, len(handles), PAGE):
                # Whether the data parses is tested by the server, which does not send it.
                kinds = [documents.live(now_ms), documents.TOMBSTONE]
                query = {"_id": {"$in": handles[start : start + PAGE]}, "$or": kinds}
                async for document in self._sessions.find(query, {"data": False}, batch_size=PAGE):
                    found[document["_id"]] = {**document, "data": {}}
            return found

        found = await self._read("states", attempt)
        return {each: self._state(found.get(each.handle), each.verifier, now_ms) for each in wanted}

    async def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        """Yield the live records; see `Scannable.scan`."""
        last = ""
        while True:
            query = {**documents.live(now_ms), "_id": {"$gt": last}}
            cursor = self._sessions.find(query, sort=["_id"], limit=PAGE, batch_size=PAGE)
            page = await self._calls.run("scan", cursor.to_list)
            for document in page:
                if record := self._reader.record(document):
                    yield record
            if len(page) < PAGE:
                return
            last = page[-1]["_id"]

    def gone(self) -> AsyncGenerator[Handle | None, None]:
        """Yield the handles of sessions that ended; see `Announcing.gone` and the class for its limits."""
        return self._ended.handles()

    def counters(self) -> MongoCounters:
        """Return the tallies under the same prefix, on the same client."""
        if self._counters is None:
            self._counters = MongoCounters(self._sessions, self._calls)
        return self._counters

    async def ping(self) -> None:
        """Try each right that sessions need, and create the indexes."""

        async def attempt() -> None:
            await self._rights.check()
            await self._indexes.check()
            if self._counters is not None:
                await self._counters.check()

        async with diagnosing(self._sessions.database.client, self._calls):
            await self._read("ping", attempt)

    async def server_times(self) -> AsyncIterator[int]:
        """Yield the time of the primary. Everybody may run `hello`."""
        hello = self._sessions.database.command
        reply = await self._calls.run("clock", lambda: hello("hello", codec_options=documents.CODEC))
        yield int(reply["localTime"])

    async def aclose(self) -> None:
        """End every `gone` iterator and close the connections, within one time-out; see `Store.aclose`."""
        await self._ended.aclose()
        # Closing sends the server endSessions, and a frozen server does not reply.
        self._calls.start(self._sessions.database.client.close)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._calls.timeout_s):
                await self._loads.drain()
                await self._updates.drain()
                await self._calls.drain()

    async def _read(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Await *attempt*, and once more if the connection was lost, within one time-out."""
        return await self._calls.run(operation, lambda: retry_read(attempt))
