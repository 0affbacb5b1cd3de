"""`Loads`: finds the documents requested in one iteration of the event loop with one command."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from bson.errors import BSONError
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError

from stormcellar.stores.mongo.calls import DRIVER_ERRORS, result_or_raise, retry_read
from stormcellar.stores.mongo.concurrency import LimitedBatches
from stormcellar.stores.mongo.documents import CODEC, Document
from stormcellar.stores.records import Handle

# 64 sessions of 64 KiB are a quarter of the largest reply.
MAX_SIZE, MAX_RUNNING = 64, 2

Found = Document | None | BaseException


class Loads:
    """Finds documents by handle: one, or several in a batch, with one command."""

    def __init__(self, sessions: AsyncCollection[Document], *, timeout_s: float) -> None:
        self._sessions = sessions
        self._batches = LimitedBatches[Handle, Document | None](
            self._send, max_size=MAX_SIZE, max_running=MAX_RUNNING, timeout_s=timeout_s
        )

    async def document(self, handle: Handle) -> Document | None:
        """Return the document of *handle* as it was at some time during this call."""
        return result_or_raise("load", await self._batches.submit(handle))

    async def drain(self) -> None:
        """Wait until no batch is running."""
        await self._batches.drain()

    async def _send(self, handles: Sequence[Handle]) -> Sequence[Found]:
        try:
            return await self._find(handles)
        except DRIVER_ERRORS as exc:
            return [exc] * len(handles)

    async def _find(self, handles: Sequence[Handle]) -> Sequence[Found]:
        if len(handles) == 1:
            return [await self._find_one(handles[0])]
        try:
            reply = await self._first_reply({"$in": handles})
        except (BSONError, ValueError):
            # A handle that is not text, or a document that is not BSON, must fail only its own load.
            return await self._each_alone(handles)
        found: dict[str, Found] = {document["_id"]: document for document in reply["firstBatch"]}
        if reply["id"]:
            # The rest exceeds a reply. Large sessions must not take the time of the others.
            rest = list(dict.fromkeys(handle for handle in handles if handle not in found))
            _, answers = await asyncio.gather(self._kill(reply["id"]), self._each_alone(rest))
            found |= zip(rest, answers, strict=True)
        return [found.get(handle) for handle in handles]

    async def _each_alone(self, handles: Sequence[Handle]) -> Sequence[Found]:
        return await asyncio.gather(*map(self._find_one, handles), return_exceptions=True)

    async def _find_one(self, handle: Handle) -> Document | None:
        reply = await self._first_reply({"$eq": handle})
        return next(iter(reply["firstBatch"]), None)

    async def _first_reply(self, handles: Document) -> Document:
        """Return the cursor of a find: with the documents, and an `id` other than 0 if there are more."""
        # The bare command: a cursor would take a seventh more CPU time. A batch size above the number of
        # documents makes the first reply the last one.
        find = {"find": self._sessions.name, "filter": {"_id": handles}, "batchSize": MAX_SIZE + 1}
        if concern := self._sessions.read_concern.document:
            find["readConcern"] = concern
        reply = await retry_read(lambda: self._sessions.database.command(find, codec_options=CODEC))
        cursor: Document = reply["cursor"]
        return cursor

    async def _kill(self, cursor_id: int) -> None:
        # The server ends it after ten minutes, too.
        with suppress(PyMongoError):
            await self._sessions.database.command("killCursors", self._sessions.name, cursors=[cursor_id])
