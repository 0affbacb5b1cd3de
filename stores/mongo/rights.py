"""The rights that a store needs in MongoDB, tried one by one without a change to any document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure
from pymongo.write_concern import WriteConcern

from stormcellar.stores.errors import Problem, StoreRefused
from stormcellar.stores.mongo.documents import ENDED_SESSIONS, NOBODY, Document
from stormcellar.stores.mongo.errors import UNAUTHORIZED, is_anonymous, is_full

# How servers refuse an `_id` that is an array: BadValue, InvalidIdField.
_BAD_ID = (2, 53)


class Rights:
    """The rights to read and write the documents of *collection*, and to watch them if *is_watched*."""

    def __init__(self, collection: AsyncCollection[Document], *, is_watched: bool = False) -> None:
        # No write is made, so there is nothing to wait for on the other members.
        tried = collection.with_options(write_concern=WriteConcern(1))
        self._name = collection.name
        self._tries: dict[str, Callable[[], Awaitable[Any]]] = {
            "find": lambda: tried.find_one(NOBODY, {"_id": True}),
            # The server never inserts it: an `_id` must not be an array.
            "insert": lambda: tried.insert_one({"_id": []}),
            "update": lambda: tried.update_one(NOBODY, {"$unset": {"expires": ""}}),
            "remove": lambda: tried.delete_one(NOBODY),
        }
        self._collection = collection
        self._is_watched = is_watched

    async def check(self) -> None:
        """Try each right, within the caller's time limit.

        Raises:
            StoreRefused: It names each action that the user lacks.
        """
        lacking = [action for action, attempt in self._tries.items() if not await _is_allowed(attempt)]
        if self._is_watched and not lacking and "setName" in await self._collection.database.command("hello"):
            if await _is_allowed(self._watch):
                self._is_watched = False  # once is enough: it is the only one that opens a cursor
            else:
                lacking.append("changeStream")
        if lacking:
            what = f"the MongoDB user may not run {', '.join(lacking)} on the collection {self._name!r}"
            problem = Problem(what, "grant it; docs/operations.md lists all rights that are needed")
            raise StoreRefused(f"ping: {problem}", problem)

    async def _watch(self) -> None:
        async with await self._collection.watch(ENDED_SESSIONS, max_await_time_ms=1):
            pass


async def _is_allowed(attempt: Callable[[], Awaitable[Any]]) -> bool:
    try:
        await attempt()
    except OperationFailure as exc:
        if exc.code == UNAUTHORIZED and not is_anonymous(exc):
            return False
        # A full server serves reads and sign-outs.
        if exc.code not in _BAD_ID and not is_full(exc):
            raise
    return True
