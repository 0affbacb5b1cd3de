"""`Loads`: the documents that are asked for in one turn of the loop, found together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bson.errors import BSONError
from pymongo.asynchronous.collection import AsyncCollection

from stormcellar.stores.mongo.client import FAULTS, WAIT_SHARE, answered, limited, read
from stormcellar.stores.mongo.concurrency import LimitedBatches
from stormcellar.stores.mongo.documents import CODEC, Document
from stormcellar.stores.records import Handle

# So many sessions of 64 KiB are a quarter of the greatest reply.
MAX_SIZE, MAX_RUNNING = 64, 2

Found = Document | None | BaseException


class Loads:
    """Finds documents by handle: by findOne, or with others that are asked for meanwhile by one find."""

    def __init__(self, sessions: AsyncCollection[Document], *, timeout_s: float) -> None:
        self._sessions = sessions
        max_wait_s = WAIT_SHARE * timeout_s
        self._timeout_s = timeout_s - max_wait_s
        self._batches = LimitedBatches(
            self._send, max_size=MAX_SIZE, max_running=MAX_RUNNING, max_wait_s=max_wait_s
        )

    async def document(self, handle: Handle) -> Document | None:
        """Return the document of *handle*, which is as it was at some time since this was asked."""
        return answered("load", await self._batches.submit(handle))

    async def drain(self) -> None:
        """Wait until nothing is under way any more."""
        await self._batches.drain()

    async def _send(self, handles: Sequence[Handle]) -> Sequence[Found]:
        try:
            async with limited(self._timeout_s):
                return await self._find(handles)
        except FAULTS as exc:
            return [exc] * len(handles)

    async def _find_one(self, handle: Handle) -> Document | None:
        async def attempt() -> Document:
            # The command itself: a cursor would take a seventh more of our time.
            query = {"_id": {"$eq": handle}}
            find = {"find": self._sessions.name, "filter": query, "limit": 1, "singleBatch": True}
            if concern := self._sessions.read_concern.document:
                find["readConcern"] = concern
            return await self._sessions.database.command(find, codec_options=CODEC)

        reply = await read(attempt)
        return next(iter(reply["cursor"]["firstBatch"]), None)

    async def _find(self, handles: Sequence[Handle]) -> Sequence[Found]:
        if len(handles) == 1:
            return [await self._find_one(handles[0])]
        query = {"_id": {"$in": handles}}
        try:
            # With room for one more than there can be, the first reply says that it is the last.
            documents = await read(lambda: self._sessions.find(query, batch_size=MAX_SIZE + 1).to_list())
        except (BSONError, ValueError):
            # A handle or a document that is no text or no BSON is the fault of one alone.
            return await asyncio.gather(*map(self._find_one, handles), return_exceptions=True)
        found = {document["_id"]: document for document in documents}
        return [found.get(handle) for handle in handles]
