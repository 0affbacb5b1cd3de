"""The indexes of the MongoDB collections, and their creation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from stormcellar.stores.errors import Problem, StoreError, StoreRefused, StoreUnavailable, log_text
from stormcellar.stores.mongo.calls import DRIVER_ERRORS, DRIVER_SHARE, Calls
from stormcellar.stores.mongo.errors import UNAUTHORIZED, is_anonymous, store_error

LOG = logging.getLogger(__name__)

T = TypeVar("T")

# An hour late: a record stays ten minutes after its expiry, also where the clock of the application is behind
# the server's.
TTL_SLACK_S = 3600
BY_USER = "user"

TALLY_INDEXES = [IndexModel([("expires", ASCENDING)], name="expires", expireAfterSeconds=TTL_SLACK_S)]
SESSION_INDEXES = [*TALLY_INDEXES, IndexModel([("user", ASCENDING)], name=BY_USER, sparse=True)]

_BAD_VALUE = 2
_CONFLICTS = {85: "IndexOptionsConflict", 86: "IndexKeySpecsConflict"}
_TTL = "expireAfterSeconds"
# What the server adds to each index.
_ADDED = {"v", "ns", "background"}

# How long a new build is awaited, as a share of the time-out: `ping` waits for the builds of two collections,
# and `create` needs the rest for its write.
_WAIT_SHARE = 0.25
_IN_PROGRESS = Problem(
    "MongoDB is building an index that this call needs", "wait for it; `db.currentOp()` in mongosh shows it"
)

Index = Mapping[str, Any]


class Indexes:
    """The indexes *models* of *collection*, created at the first call of a process that needs them.

    With many sessions a build takes minutes. So it has no time limit, which would make the server abort it;
    one build runs at a time, and a call waits for it only as long as it can.

    Args:
        calls: Keeps the task of the build.
    """

    def __init__(
        self, collection: AsyncCollection[dict[str, Any]], models: Sequence[IndexModel], calls: Calls
    ) -> None:
        self._collection = collection
        self._models = models
        self._calls = calls
        self._exist = False
        self._build: asyncio.Task[None] | None = None
        # Until when the build is awaited, on the loop's clock.
        self._awaited_until_s = 0.0

    async def ensure(self) -> None:
        """Create the indexes, unless that is done, and wait for their build for a quarter of the time-out.

        A build that takes longer continues, and other calls do not wait for it.

        Raises:
            StoreRefused: Another index is in the place of ours, or one is missing and may not be created.
        """
        if not self._exist:
            await self._has_ended(self._begun(), self._awaited_until_s)

    async def check(self) -> None:
        """As `ensure`; if that is done, begin to create what somebody has dropped since."""
        if self._exist:
            self._begun()
        else:
            await self.ensure()

    def _begun(self) -> asyncio.Task[None]:
        """Return the build that is running, or a new one."""
        if self._build is None or self._build.done():
            wait_s = 0.0 if self._exist else _WAIT_SHARE * self._calls.timeout_s
            self._awaited_until_s = asyncio.get_running_loop().time() + wait_s
            self._build = self._calls.start_unlimited(self._create)
        return self._build

    async def _has_ended(self, build: asyncio.Task[None], until_s: float) -> bool:
        """Wait for *build* until then, and return whether it has ended; raise its error."""
        left_s = until_s - asyncio.get_running_loop().time()
        # Not cancelled: others wait for it as well.
        await asyncio.wait([build], timeout=max(0.0, left_s))
        if build.done():
            build.result()
        return build.done()

    async def _create(self) -> None:
        try:
            await self._create_all()
        except (StoreError, *DRIVER_ERRORS) as exc:
            if asyncio.get_running_loop().time() >= self._awaited_until_s:
                error = exc if isinstance(exc, StoreError) else store_error("createIndexes", exc)
                reason = log_text(error) if isinstance(error, StoreError) else type(error).__name__
                LOG.warning("the indexes of %r could not be created: %s", self._collection.name, reason)
            raise
        self._exist = True

    async def _create_all(self) -> None:
        try:
            await self._collection.create_indexes(self._models)
        except OperationFailure as exc:
            if exc.code not in _CONFLICTS and exc.code != UNAUTHORIZED:
                raise
            await self._adopt()

    async def use(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of *call*, which names an index; wait for that, and create it if it is missing.

        Raises:
            StoreUnavailable: It is not there in time.
        """
        until_s = asyncio.get_running_loop().time() + DRIVER_SHARE * self._calls.timeout_s
        await self.ensure()
        try:
            return await call()
        except OperationFailure as exc:
            if exc.code != _BAD_VALUE or "hint" not in str(exc):
                raise
        if not await self._has_ended(self._begun(), until_s):
            raise StoreUnavailable(str(_IN_PROGRESS), _IN_PROGRESS)
        return await call()

    async def _adopt(self) -> None:
        """Create the indexes that are missing, and give an older TTL index its slack."""
        existing = await self._list()
        for model in self._models:
            found = _same(existing, model.document)
            if found is None:
                await self._create_one(model)
            elif differences := _differences(found, model.document):
                raise _refusal(self._collection.name, found, ", ".join(differences))
            elif found.get(_TTL, 0) < model.document.get(_TTL, 0):
                await self._give_slack(found)

    async def _list(self) -> list[Index]:
        try:
            return [*await (await self._collection.list_indexes()).to_list()]
        except OperationFailure as exc:
            if exc.code != UNAUTHORIZED or is_anonymous(exc):
                raise
            what = f"the MongoDB user may not run listIndexes on the collection {self._collection.name!r}"
            raise _refused(what, "grant it; docs/operations.md lists all rights that are needed") from exc

    async def _create_one(self, model: IndexModel) -> None:
        """Create an index. The user may lack that right if an administrator has created all of them."""
        try:
            await self._collection.create_indexes([model])
        except OperationFailure as exc:
            if exc.code != UNAUTHORIZED:
                raise
            name = model.document["name"]
            what = f"{_place(self._collection.name, name)} is missing, and this user may not run createIndex"
            raise _refused(
                what, "grant createIndex, or create the index as docs/operations.md shows"
            ) from exc

    async def _give_slack(self, found: Index) -> None:
        change = {"name": found["name"], _TTL: TTL_SLACK_S}
        try:
            await self._collection.database.command("collMod", self._collection.name, index=change)
        except OperationFailure as exc:
            if exc.code != UNAUTHORIZED:
                raise
            what = f"{_TTL} {found[_TTL]} instead of {TTL_SLACK_S}, and this user may not run collMod"
            raise _refusal(self._collection.name, found, what) from exc


def _same(existing: Iterable[Index], wanted: Index) -> Index | None:
    """Return the index that has the name of *wanted*, or else its key."""
    by_name = {index["name"]: index for index in existing}
    same_key = [index for index in by_name.values() if _key(index) == _key(wanted)]
    return by_name.get(wanted["name"]) or next(iter(same_key), None)


def _differences(found: Index, wanted: Index) -> list[str]:
    """Return which options differ, except for the value of a TTL."""
    names = sorted((found.keys() | wanted.keys()) - _ADDED - {"key", _TTL})
    differences = [name for name in names if found.get(name) != wanted.get(name)]
    if _key(found) != _key(wanted):
        differences.insert(0, "key")
    # A comparison with NaN, which old servers stored, is false.
    if (_TTL in found) != (_TTL in wanted) or not found.get(_TTL, 0) >= 0:
        differences.append(_TTL)
    return differences


def _key(index: Index) -> list[tuple[str, Any]]:
    return list(index["key"].items())


def _refusal(collection: str, found: Index, what: str) -> StoreRefused:
    place = _place(collection, found["name"])
    return _refused(f"{place} differs from ours in: {what}", "drop it, and it is created anew")


def _place(collection: str, name: str) -> str:
    return f"the index {name!r} of the collection {collection!r}"


def _refused(what: str, advice: str) -> StoreRefused:
    problem = Problem(what, advice)
    return StoreRefused(str(problem), problem)
