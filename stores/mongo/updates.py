"""`Updates`: sends the conditional updates of one iteration of the event loop together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pymongo import UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, OperationFailure

from stormcellar.stores.mongo.calls import DRIVER_ERRORS, Calls, result_or_raise
from stormcellar.stores.mongo.concurrency import LimitedBatches
from stormcellar.stores.mongo.documents import IMMUTABLE_FIELD, Document, never_inserting
from stormcellar.stores.records import Credential, Delta, Rotation

# Small enough that we handle the replies to one batch while the server executes the next.
MAX_SIZE, MAX_RUNNING = 8, 2
ORDINARY_BYTES = 1 << 20
# More than a name of a data key takes in a command: 64 characters, a type, lengths and an index.
NAME_BYTES = 100
MOST_UTF8 = 4


class Update(NamedTuple):
    """A change of the one document that *target* matches, if any."""

    target: Document
    change: Document | list[Document]


def is_ordinary(credential: Credential, delta: Delta, rotation: Rotation | None = None) -> bool:
    """Return whether the driver certainly accepts an update: it refuses a whole batch because of one.

    A name of a data key is checked already, and so is a user. Each name counts with what is around it.
    """
    values = sum(map(len, delta.put.values())) + sum(len(value or b"") for value in delta.expect.values())
    size = values + NAME_BYTES * (len(delta.put) + len(delta.drop) + len(delta.expect))
    unchecked = [*credential]
    if rotation is not None:
        keep = rotation.keep or ()
        unchecked += [rotation.new_verifier, *keep]
        size += len(rotation.client) + MOST_UTF8 * len(rotation.user or "") + NAME_BYTES * len(keep)
    text = "".join(unchecked)
    return text.isascii() and size + len(text) <= ORDINARY_BYTES


class Updates:
    """Sends updates of one document each: one with updateOne, several in one unordered bulkWrite.

    The reply to a bulkWrite has the number of updates that matched, not which, but it has the index of each
    that failed. So in a batch each update is an upsert whose insert always fails: an update that matches
    nothing is reported as failed, and inserts nothing.
    """

    def __init__(self, sessions: AsyncCollection[Document], calls: Calls) -> None:
        self._sessions = sessions
        self._calls = calls
        self._batches = LimitedBatches[Update, bool](
            self._send, max_size=MAX_SIZE, max_running=MAX_RUNNING, timeout_s=calls.timeout_s
        )

    async def matched(self, operation: str, update: Update, *, is_alone: bool) -> bool:
        """Send *update*, and return whether it matched.

        Args:
            is_alone: Send it outside of any batch, because it is not `is_ordinary`.
        """
        if is_alone:
            return await self._calls.run(operation, lambda: self._write_one(update))
        return result_or_raise(operation, await self._batches.submit(update))

    async def drain(self) -> None:
        """Wait until no batch is running."""
        await self._batches.drain()

    async def _send(self, updates: Sequence[Update]) -> Sequence[bool | BaseException]:
        try:
            return await self._write(updates)
        except DRIVER_ERRORS as exc:
            return [exc] * len(updates)

    async def _write_one(self, update: Update) -> bool:
        return (await self._sessions.update_one(*update)).matched_count > 0

    async def _write(self, updates: Sequence[Update]) -> Sequence[bool | BaseException]:
        if len(updates) == 1:
            return [await self._write_one(updates[0])]
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
        # No server should insert. If one did, the update matched nothing, and the document has no handle.
        failed |= dict.fromkeys(upserted, False)
        return [failed.get(number, True) for number in range(len(updates))]


def _outcome(error: dict[str, Any]) -> bool | BaseException:
    if error["code"] == IMMUTABLE_FIELD:
        return False
    return OperationFailure(error["errmsg"], error["code"], error)
