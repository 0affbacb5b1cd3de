"""The indexes of the MongoDB collections, and their creation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from stormcellar.stores.errors import Problem, StoreRefused
from stormcellar.stores.mongo.calls import Calls
from stormcellar.stores.mongo.errors import UNAUTHORIZED, is_anonymous

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

Index = Mapping[str, Any]


class Indexes:
    """The indexes *models* of *collection*, created at the first call of a process that needs them.

    Args:
        calls: Makes the calls that nobody waits for.
    """

    def __init__(
        self, collection: AsyncCollection[dict[str, Any]], models: Sequence[IndexModel], calls: Calls
    ) -> None:
        self._collection = collection
        self._models = models
        self._calls = calls
        self._exist = False
        self._lock = asyncio.Lock()

    async def ensure(self) -> None:
        """Create the indexes, unless that is done, within the caller's time limit.

        Raises:
            StoreRefused: Another index is in the place of ours, or one is missing and may not be created.
        """
        async with self._lock:
            if not self._exist:
                await self._create_all()
                self._exist = True

    async def check(self) -> None:
        """As `ensure`; if that is done, begin to create what somebody has dropped since."""
        if self._exist:
            # Nobody waits: with many sessions that takes minutes.
            self._calls.start(self._create_all)
        else:
            await self.ensure()

    async def _create_all(self) -> None:
        try:
            await self._collection.create_indexes(self._models)
        except OperationFailure as exc:
            if exc.code not in _CONFLICTS and exc.code != UNAUTHORIZED:
                raise
            await self._adopt()

    async def use(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of *call*, which names an index; create that if somebody has dropped it."""
        await self.ensure()
        try:
            return await call()
        except OperationFailure as exc:
            if exc.code != _BAD_VALUE or "hint" not in str(exc):
                raise
        await self._create_all()
        return await call()

    async def _adopt(self) -> None:
        """Create the indexes that are missing, and give an older TTL index its slack."""
        existing = await self._list()
        for model in self._models:
            found = _same(existing, model.document)
            if found is None:
                await self._create(model)
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

    async def _create(self, model: IndexModel) -> None:
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
