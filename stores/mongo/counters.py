"""Tallies in MongoDB: one document each, in a separate collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from stormcellar.stores.counters import MOST_DOUBLINGS, NO_TALLY, Counters, Rule, Tally, check_key
from stormcellar.stores.errors import StoreUnavailable
from stormcellar.stores.mongo.calls import Calls, retry_read
from stormcellar.stores.mongo.documents import Document
from stormcellar.stores.mongo.indexes import TALLY_INDEXES, Indexes
from stormcellar.stores.mongo.rights import Rights

_NEVER = DatetimeMS(0)


class MongoCounters(Counters):
    """Keeps tallies in a collection of documents `{_id: key, count, next: date, expires: date, taken}`.

    ============  =====================================================================================
    take          findAndModify({_id}, [{$set}, ...], upsert); before the first one, createIndexes
    peek          findOne({_id})
    give_back     updateOne({_id, $expr: expires > now}, [{$set}])
    forget        deleteOne({_id})
    ============  =====================================================================================

    `taken` is the result of the last take. A tally that is given back to 0 stays until its expiry.
    """

    def __init__(self, sessions: AsyncCollection[Document], calls: Calls) -> None:
        self._tallies = sessions.database.get_collection(
            sessions.name.removesuffix("_sessions") + "_counters",
            codec_options=sessions.codec_options,
            read_preference=sessions.read_preference,
            write_concern=sessions.write_concern,
        )
        self._calls = calls
        self._indexes = Indexes(self._tallies, TALLY_INDEXES, calls)
        self._rights = Rights(self._tallies)

    async def check(self) -> None:
        """Try each right, and create the index, within the caller's time limit."""
        await self._rights.check()
        await self._indexes.check()

    async def take(self, key: str, rule: Rule, *, now_ms: int) -> Tally:
        """Take one, unless the limit is reached and the wait is not over."""
        check_key(key)

        async def call() -> Document:
            await self._indexes.ensure()
            try:
                return await self._take(key, rule, now_ms)
            except DuplicateKeyError:
                # Another call inserted the tally meanwhile; this one wrote nothing.
                return await self._take_again(key, rule, now_ms)

        found = await self._calls.run("take", call)
        is_limited = found["count"] >= rule.limit
        return Tally(found["taken"], int(found["count"]), int(found["next"]) if is_limited else 0)

    async def _take(self, key: str, rule: Rule, now_ms: int) -> Document:
        found = await self._tallies.find_one_and_update(
            {"_id": {"$eq": key}}, _taking(rule, now_ms), upsert=True, return_document=ReturnDocument.AFTER
        )
        assert found is not None, "an upsert returns what it wrote"
        return found

    async def _take_again(self, key: str, rule: Rule, now_ms: int) -> Document:
        try:
            return await self._take(key, rule, now_ms)
        except DuplicateKeyError as exc:
            raise StoreUnavailable("take") from exc

    async def peek(self, key: str, *, now_ms: int) -> Tally:
        """Return the tally without taking one."""
        check_key(key)
        query = {"_id": {"$eq": key}}
        found = await self._calls.run("peek", lambda: retry_read(lambda: self._tallies.find_one(query)))
        return _parsed(found or {}, now_ms)

    async def give_back(self, key: str, tally: Tally, *, now_ms: int) -> None:
        """Undo the take that returned *tally*."""
        check_key(key)
        is_own = {"$eq": ["$next", DatetimeMS(tally.next_ms)]}
        is_last = {"$lte": ["$count", 1]}
        change = {
            "count": {"$max": [{"$subtract": ["$count", 1]}, 0]},
            "next": {"$cond": [{"$or": [is_own, is_last]}, _NEVER, "$next"]},
        }
        target = {"_id": {"$eq": key}, "$expr": _is_live(now_ms)}
        await self._calls.run("give_back", lambda: self._tallies.update_one(target, [{"$set": change}]))

    async def forget(self, key: str) -> None:
        """Remove the tally."""
        check_key(key)
        await self._calls.run("forget", lambda: self._tallies.delete_one({"_id": {"$eq": key}}))


def _is_live(now_ms: int) -> Document:
    """Return the expression that is true for a well-formed tally that has not expired."""
    dates = [{"$eq": [{"$type": f"${name}"}, "date"]} for name in ("next", "expires")]
    return {"$and": [{"$isNumber": "$count"}, *dates, {"$gt": ["$expires", DatetimeMS(now_ms)]}]}


def _taking(rule: Rule, now_ms: int) -> list[Document]:
    """Return the pipeline of a take. Without a tally it starts from an empty document."""
    now = DatetimeMS(now_ms)
    is_live = _is_live(now_ms)
    doublings = {"$min": [{"$subtract": ["$count", rule.limit]}, MOST_DOUBLINGS]}
    wait = {"$min": [{"$multiply": [rule.first_wait_ms, {"$pow": [2, doublings]}]}, rule.longest_wait_ms]}
    is_limited = {"$and": ["$taken", {"$gte": ["$count", rule.limit]}]}
    return [
        {"$set": {"count": {"$cond": [is_live, "$count", 0]}, "next": {"$cond": [is_live, "$next", _NEVER]}}},
        {"$set": {"taken": {"$or": [{"$lt": ["$count", rule.limit]}, {"$gte": [now, "$next"]}]}}},
        {
            "$set": {
                "count": {"$cond": ["$taken", {"$add": ["$count", 1]}, "$count"]},
                "expires": {"$cond": ["$taken", DatetimeMS(now_ms + rule.keep_ms), "$expires"]},
            }
        },
        {"$set": {"next": {"$cond": [is_limited, {"$add": [now, wait]}, "$next"]}}},
    ]


def _parsed(document: Mapping[str, Any], now_ms: int) -> Tally:
    """Return the tally in *document*, or `NO_TALLY` if it is not a live one."""
    count, next_ms, expires = (document.get(name) for name in ("count", "next", "expires"))
    if isinstance(count, int) and isinstance(next_ms, DatetimeMS) and isinstance(expires, DatetimeMS):
        return Tally(False, int(count), int(next_ms)) if int(expires) > now_ms else NO_TALLY
    return NO_TALLY
