"""`Updates`: the conditional updates that are asked for in one turn of the loop, sent together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, OperationFailure

from stormcellar.stores.mongo.client import FAULTS, WAIT_SHARE, answered, limited
from stormcellar.stores.mongo.concurrency import LimitedBatches
from stormcellar.stores.mongo.documents import IMMUTABLE_FIELD, Document, never_inserting

# Small enough that the answers to one batch are at work while the server does the next.
MAX_SIZE, MAX_RUNNING = 8, 2
ORDINARY_BYTES = 1 << 20


class Update(NamedTuple):
    """A change of the one document that *target* matches, if it does."""

    target: Document
    change: Document | list[Document]


def is_ordinary(texts: Iterable[str], values: Iterable[bytes]) -> bool:
    """Say whether the driver is sure to send an update, since it refuses a whole batch for the sake of one.

    Args:
        texts, values: Whatever of it a caller chose.
    """
    return "".join(texts).isascii() and sum(map(len, values)) <= ORDINARY_BYTES


class Updates:
    """Sends updates of one document each: by updateOne, or with others by one unordered bulkWrite.

    Its reply tells how many statements matched, not which, but it does tell which ones failed. So in a batch
    each is an upsert that is bound to fail: one that matches nothing says so, and inserts nothing.
    """

    def __init__(self, sessions: AsyncCollection[Document], *, timeout_s: float) -> None:
        self._sessions = sessions
        max_wait_s = WAIT_SHARE * timeout_s
        self._timeout_s = timeout_s - max_wait_s
        self._batches = LimitedBatches(
            self._send, max_size=MAX_SIZE, max_running=MAX_RUNNING, max_wait_s=max_wait_s
        )

    async def matched(self, operation: str, update: Update, *, is_alone: bool) -> bool:
        """Send *update*, and say whether it matched.

        Args:
            is_alone: Not in a batch, as what is not `is_ordinary`.
        """
        if is_alone:
            return answered(operation, (await self._send([update]))[0])
        return answered(operation, await self._batches.submit(update))

    async def drain(self) -> None:
        """Wait until nothing is under way any more."""
        await self._batches.drain()

    async def _send(self, updates: Sequence[Update]) -> Sequence[bool | BaseException]:
        try:
            async with limited(self._timeout_s):
                return await self._write(updates)
        except FAULTS as exc:
            return [exc] * len(updates)

    async def _write(self, updates: Sequence[Update]) -> Sequence[bool | BaseException]:
        if len(updates) == 1:
            result = await self._sessions.update_one(*updates[0])
            return [result.matched_count > 0]
        statements = [UpdateOne(target, never_inserting(change), upsert=True) for target, change in updates]
        failed: dict[int, bool | BaseException] = {}
        try:
            written = await self._sessions.bulk_write(statements, ordered=False)
            upserted = set(written.upserted_ids or ())
        except BulkWriteError as exc:
            if exc.details["writeConcernErrors"]:
                raise
            failed = {error["index"]: _outcome(error) for error in exc.details["writeErrors"]}
            upserted = {each["index"] for each in exc.details["upserted"]}
        # No server should insert one. If ever one did, it matched nothing, and lies under no handle.
        failed |= dict.fromkeys(upserted, False)
        return [failed.get(number, True) for number in range(len(updates))]


def _outcome(error: dict[str, Any]) -> bool | BaseException:
    if error["code"] == IMMUTABLE_FIELD:
        return False
    return OperationFailure(error["errmsg"], error["code"], error)
