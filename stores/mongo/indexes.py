"""The indexes of the MongoDB collections, and their creation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection

# 60 s late, so that a record is never removed between a load and the touch that follows it.
TTL_SLACK_S = 60
BY_USER = "user"

TALLY_INDEXES = [IndexModel([("expires", ASCENDING)], name="expires", expireAfterSeconds=TTL_SLACK_S)]
SESSION_INDEXES = [*TALLY_INDEXES, IndexModel([("user", ASCENDING)], name=BY_USER, sparse=True)]


class Indexes:
    """The indexes *models* of *collection*, created once per process."""

    def __init__(self, collection: AsyncCollection[dict[str, Any]], models: Sequence[IndexModel]) -> None:
        self._collection = collection
        self._models = models
        self._exist = False
        self._lock = asyncio.Lock()

    async def ensure(self) -> None:
        """Create the indexes, unless that is done, within the caller's time limit."""
        async with self._lock:
            if not self._exist:
                await self._collection.create_indexes(self._models)
                self._exist = True
