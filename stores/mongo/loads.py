"""`Loads`: finds the documents requested in one iteration of the event loop with one command."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bson.errors import BSONError
from pymongo.asynchronous.collection import AsyncCollection

from stormcellar.stores.mongo.calls import DRIVER_ERRORS, result_or_raise, retry_read
from stormcellar.stores.mongo.concurrency import LimitedBatches
from stormcellar.stores.mongo.documents import CODEC, Document
from stormcellar.stores.records import Handle

# 64 sessions of 64 KiB are a quarter of the largest reply.
MAX_SIZE, MAX_RUNNING = 64, 2

Found = Document | None | BaseException


class Loads:
    """Finds documents by handle: one with findOne, several in a batch with one find."""

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

    async def _find_one(self, handle: Handle) -> Document | None:
        async def attempt() -> Document:
            # The bare command: a cursor would take a seventh more CPU time.
            query = {"_id": {"$eq": handle}}
            find = {"find": self._sessions.name, "filter": query, "limit": 1, "singleBatch": True}
            if concern := self._sessions.read_concern.document:
                find["readConcern"] = concern
            return await self._sessions.database.command(find, codec_options=CODEC)

        reply = await retry_read(attempt)
        return next(iter(reply["cursor"]["firstBatch"]), None)

    async def _find(self, handles: Sequence[Handle]) -> Sequence[Found]:
        if len(handles) == 1:
            return [await self._find_one(handles[0])]
        query = {"_id": {"$in": handles}}
        try:
            # A batch size above the number of documents makes the first reply the last one.
            documents = await retry_read(
                lambda: self._sessions.find(query, batch_size=MAX_SIZE + 1).to_list()
            )
        except (BSONError, ValueError):
            # A handle that is not text, or a document that is not BSON, must fail only its own load.
            return await asyncio.gather(*map(self._find_one, handles), return_exceptions=True)
        found = {document["_id"]: document for document in documents}
        return [found.get(handle) for handle in handles]
