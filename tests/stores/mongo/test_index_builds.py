"""An index build that takes longer than the time-out: it continues, and sessions are served meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pymongo
import pytest

from stormcellar.stores import StoreUnavailable
from stormcellar.stores.conformance.cases import NOW, created, handles, loaded, new_user
from stormcellar.stores.counters import Rule
from stormcellar.stores.errors import problem_of
from stormcellar.stores.mongo import MongoStore
from stormcellar.stores.mongo.client import collection_name
from tests.conftest import StartServer
from tests.stores.mongo.samples import Document, store_at

TIMEOUT_S = 1.0
PREFIX = "large"
RULE = Rule(limit=1, first_wait_ms=1, longest_wait_ms=1, keep_ms=1)
SESSIONS, TALLIES = {"_id_", "expires", "user"}, {"_id_", "expires"}


class SlowBuilds:
    """A server where an index build of a collection with documents lasts until `finish`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: pymongo.MongoClient[Document] = pymongo.MongoClient(url)
        self.sessions = self._client.stormcellar[collection_name(PREFIX)]
        self.tallies = self._client.stormcellar[f"{PREFIX}_counters"]
        # Without a document an index is created at once.
        self.sessions.insert_one({"_id": "filled"})
        self.tallies.insert_one({"_id": "filled"})
        self.hold()

    def _fail(self, mode: str) -> None:
        self._client.admin.command("configureFailPoint", "hangAfterStartingIndexBuild", mode=mode)

    def hold(self) -> None:
        """Let no build end."""
        self._fail("alwaysOn")

    def finish(self) -> None:
        """Let the builds end."""
        self._fail("off")

    def calls(self) -> list[int]:
        """Return the numbers of the operations that create the indexes of the sessions."""
        # The server's own thread that builds has no connection.
        query = {"connectionId": {"$exists": True}, "command.createIndexes": self.sessions.name}
        operations = self._client.admin.aggregate([{"$currentOp": {"allUsers": True}}, {"$match": query}])
        return [each["opid"] for each in operations]

    def kill(self) -> int:
        """End them with an error, and return how many there were."""
        numbers = self.calls()
        for number in numbers:
            self._client.admin.command("killOp", op=number)
        return len(numbers)

    async def finished(self) -> None:
        """Let the builds end, and return once all indexes exist."""
        self.finish()
        end_s = time.monotonic() + 20
        while not (
            self.sessions.index_information().keys() == SESSIONS
            and self.tallies.index_information().keys() == TALLIES
        ):
            assert time.monotonic() < end_s, "the indexes are not there"
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """Let the builds end, and close the connections."""
        self.finish()
        self._client.close()


@pytest.fixture(params=["mongo", "mongo_rs"])
def slow(request: pytest.FixtureRequest, start_server: StartServer) -> Iterator[SlowBuilds]:
    """A server of each kind whose builds last."""
    server = start_server(request.param, extra=["--setParameter", "enableTestCommands=1"])
    builds = SlowBuilds(server.url)
    yield builds
    builds.close()


@asynccontextmanager
async def opened(slow: SlowBuilds) -> AsyncIterator[MongoStore]:
    """A store with a short time-out on *slow*, where builds have ended when it is closed."""
    async with store_at(slow.url, timeout_s=TIMEOUT_S, prefix=PREFIX) as store:
        try:
            yield store
        finally:
            slow.finish()


@pytest.mark.gen_test(timeout=90)
async def test_a_process_starts_and_serves_while_its_indexes_are_built(slow: SlowBuilds) -> None:
    """Checks pass, sign-ins and tallies are written, and the one build ends, without another check."""
    async with opened(slow) as store:
        counters = store.counters()
        for _ in range(3):
            await store.ping()
        running = await asyncio.to_thread(slow.calls)
        # Longer than the time limit of a call.
        await asyncio.sleep(2 * TIMEOUT_S)

        user = new_user()
        record = await created(store, user=user)
        tally = await counters.take("key", RULE, now_ms=NOW)
        assert len(running) == 1
        assert (tally.count, await loaded(store, record.credential)) == (1, record)

        await slow.finished()
        assert handles(await store.of_user(user, now_ms=NOW)) == [record.handle]


@pytest.mark.gen_test(timeout=90)
async def test_the_first_call_of_a_process_does_not_wait_for_a_long_build(slow: SlowBuilds) -> None:
    """Also without a check a sign-in is written in time, and its build continues."""
    async with opened(slow) as store:
        begun_s = time.monotonic()
        await created(store)
        first_s = time.monotonic() - begun_s
        begun_s = time.monotonic()
        await created(store)
        second_s = time.monotonic() - begun_s

        # Only the call that begins the build waits a little, for the error of another index in its place.
        assert second_s < TIMEOUT_S / 4 <= first_s < TIMEOUT_S


@pytest.mark.gen_test(timeout=90)
async def test_a_listing_waits_for_its_index_and_says_so(slow: SlowBuilds) -> None:
    """It is an outage with its reason until the index is there; a build that ends in time is awaited."""
    async with opened(slow) as store:
        user = new_user()
        record = await created(store, user=user)
        with pytest.raises(StoreUnavailable) as unavailable:
            await store.of_user(user, now_ms=NOW)

        listing = asyncio.ensure_future(store.of_user(user, now_ms=NOW))
        await asyncio.sleep(TIMEOUT_S / 4)
        await asyncio.to_thread(slow.finish)
        assert problem_of(unavailable.value).what == "MongoDB is building an index that this call needs"
        assert handles(await listing) == [record.handle]


@pytest.mark.gen_test(timeout=90)
async def test_closing_does_not_wait_for_a_long_build(slow: SlowBuilds) -> None:
    """The store closes within its time-out."""
    async with opened(slow) as store:
        await store.ping()
        begun_s = time.monotonic()
        await store.aclose()
        took_s = time.monotonic() - begun_s

    assert took_s < 2 * TIMEOUT_S


@pytest.mark.gen_test(timeout=90)
async def test_a_running_process_creates_dropped_indexes_however_long_it_takes(slow: SlowBuilds) -> None:
    """Each check finds the build of the one before, and none aborts it."""
    async with opened(slow) as store:
        store.counters()
        slow.finish()
        await store.ping()
        await slow.finished()
        for collection in (slow.sessions, slow.tallies):
            collection.drop_indexes()
        slow.hold()

        for _ in range(3):
            await store.ping()
            await asyncio.sleep(TIMEOUT_S)
        running = await asyncio.to_thread(slow.calls)

        assert len(running) == 1
        await slow.finished()


@pytest.mark.gen_test(timeout=90)
async def test_a_build_that_fails_later_is_logged_and_begun_again(
    slow: SlowBuilds, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for its error, so the log has the reason; the next check begins another build."""
    async with opened(slow) as store:
        await store.ping()
        killed = await asyncio.to_thread(slow.kill)
        while slow.sessions.name not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

        await store.ping()
        store.counters()
        await store.ping()
        assert killed > 0
        assert caplog.messages == [
            f"the indexes of {slow.sessions.name!r} could not be created: StoreUnavailable"
        ]
        await slow.finished()
