"""`SessionWatch` while the store fails, after that, and in a process that was frozen."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import pytest

from stormcellar.sessions.live.check_queue import SLICE, WORKERS
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.sessions.live.watched import End
from stormcellar.stores import Absent, Credential, Handle, Record, StoreUnavailable
from stormcellar.stores.conformance.cases import created_many
from stormcellar.stores.memory import MemoryStore
from tests.sessions.live.watching import OFTEN, Deaf, end_of, live_record, now_ms
from tests.support.fakes import SteeredStore


@pytest.mark.gen_test
async def test_outage_is_borne_for_a_while(watching: Any) -> None:
    """While the store is down nobody is told anything; what ended meanwhile is told when it is back."""
    it = watching(rechecks=Rechecks(every_s=0.05, patience_s=math.inf))
    record, other = await it.new(), await it.new()
    held, stays = it.watch.hold(record), it.watch.hold(other)
    await it.settle()
    it.store.fail["states"] = StoreUnavailable("states")
    await it.store.destroy(record.handle, now_ms=now_ms())
    await it.settle(3)
    during = held.end
    del it.store.fail["states"]

    assert (during, await end_of(held), stays.end) == (None, End.SIGNED_OUT, None)


@pytest.mark.gen_test
async def test_long_outage_ends_it(watching: Any) -> None:
    """After the time that is set, holders are told that nobody knows."""
    it = watching(rechecks=Rechecks(every_s=0.05, patience_s=0.3))
    held = it.watch.hold(await it.new())
    await it.settle()
    it.store.fail["states"] = StoreUnavailable("states")

    assert await end_of(held) is End.STORE_DOWN


@pytest.mark.gen_test
async def test_one_bad_session_does_not_hold_up_the_others(watching: Any) -> None:
    """Where one node of a cluster is down, sessions on the others are found to be over all the same."""

    class OneDown(SteeredStore):
        down: Credential

        async def states(self, credentials: Any, *, now_ms: int) -> Any:
            asked = set(credentials)
            if self.down in asked:
                raise StoreUnavailable("states")
            return await super().states(asked, now_ms=now_ms)

    store = OneDown(MemoryStore())
    it = watching(store, Rechecks(every_s=0.05, patience_s=math.inf))
    record, stuck = await it.new(), await it.new()
    store.down = stuck.credential
    stays, held = it.watch.hold(stuck), it.watch.hold(record)
    await it.store.destroy(record.handle, now_ms=now_ms())

    assert (await end_of(held), stays.end) == (End.SIGNED_OUT, None)


@pytest.mark.gen_test
async def test_silent_node_delays_nobody_else(watching: Any) -> None:
    """Ends on other nodes are found while a call waits for it, and their sessions are never given up."""
    answers = asyncio.Event()

    class OneSilent(SteeredStore):
        silent: frozenset[Credential] = frozenset()

        async def states(self, credentials: Any, *, now_ms: int) -> Any:
            asked = set(credentials)
            if asked & self.silent:
                await answers.wait()
                raise StoreUnavailable("states")
            return await super().states(asked, now_ms=now_ms)

    it = watching(OneSilent(MemoryStore()), Rechecks(every_s=3600.0, patience_s=0.3))
    stuck = [await it.new() for _ in range(SLICE)]
    it.store.silent = frozenset(record.credential for record in stuck)
    silent = [it.watch.hold(record) for record in stuck]
    ended, record = await it.new(), await it.new()
    held, stays = it.watch.hold(ended), it.watch.hold(record)
    await it.store.destroy(ended.handle, now_ms=now_ms())
    during = await end_of(held)
    answers.set()

    assert during is End.SIGNED_OUT
    assert {await end_of(each) for each in silent} == {End.STORE_DOWN}
    assert stays.end is None


@pytest.mark.gen_test
async def test_error_of_a_store_stops_nothing(watching: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A store of the application's own that raises something else is logged and asked again."""

    class Odd(SteeredStore):
        is_wrong = True

        async def gone(self) -> AsyncGenerator[Handle | None, None]:
            if self.is_wrong:
                raise ValueError("odd")
            async for handle in self.inner.gone():  # type: ignore[attr-defined]
                yield handle

        async def states(self, credentials: Any, *, now_ms: int) -> Any:
            if self.is_wrong:
                raise ValueError("odd")
            return await super().states(credentials, now_ms=now_ms)

    it = watching(Odd(MemoryStore()))
    held = it.watch.hold(await it.new())
    await asyncio.sleep(0.05)
    it.store.is_wrong = False
    await it.settle()
    await it.store.destroy(held.record.handle, now_ms=now_ms())

    assert await end_of(held) is End.SIGNED_OUT
    logged = {record.getMessage() for record in caplog.records}
    assert logged == {
        "could not check whether 1 sessions are live",
        "the store failed to announce ended sessions",
    }


@pytest.mark.gen_test
async def test_failing_account_directory_stops_nothing(
    watching: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the application's own directory is logged, and is no failure of the store."""
    it = watching(rechecks=OFTEN)
    record = await it.new()
    held = it.watch.hold(record)
    await it.settle()
    it.users["ada"] = 5  # seconds instead of milliseconds: ValueError
    await it.settle(2)
    during, is_asking = held.end, it.watch._queue.is_asking(held)
    it.users["ada"] = 0
    await it.store.destroy(record.handle, now_ms=now_ms())

    assert (during, is_asking, await end_of(held)) == (None, False, End.SIGNED_OUT)
    assert {record.getMessage() for record in caplog.records} == {
        f"could not check the account of session {record.handle}"
    }


@pytest.mark.gen_test
async def test_frozen_process_asks_before_it_gives_up(watching: Any) -> None:
    """A process that is stopped after a failed check, and continues late, asks a store that is back."""
    it = watching(rechecks=Rechecks(every_s=3600.0, patience_s=1.0))
    it.store.fail["states"] = StoreUnavailable("states")
    held = it.watch.hold(await it.new())
    await it.settle(2)
    del it.store.fail["states"]

    time.sleep(2.0)  # noqa: ASYNC251  as SIGSTOP does
    await it.settle()

    assert held.end is None


@pytest.mark.gen_test
async def test_frozen_process_gives_its_question_another_try(watching: Any) -> None:
    """A call that was under way when the process was stopped fails; one more is made after that."""

    class Interrupted(SteeredStore):
        tries = 0

        async def states(self, credentials: Any, *, now_ms: int) -> Any:
            self.tries += 1
            if self.tries == 4:
                time.sleep(2.0)  # noqa: ASYNC251
            if self.tries <= 4:
                raise StoreUnavailable("states")
            return await super().states(credentials, now_ms=now_ms)

    it = watching(Interrupted(MemoryStore()), Rechecks(every_s=3600.0, patience_s=1.0))
    held = it.watch.hold(await it.new())
    await it.settle()

    assert (held.end, it.store.tries) == (None, 5)


@pytest.mark.gen_test
async def test_patience_ends_while_a_call_waits(watching: Any) -> None:
    """A store that never answers is given up in time, however long its time-outs are."""
    it = watching(Deaf(), Rechecks(every_s=3600.0, patience_s=0.5))
    gate = it.store.gate("states")
    held = it.watch.hold(await it.new())
    begun_s = time.monotonic()

    assert await end_of(held) is End.STORE_DOWN
    assert 0.5 <= time.monotonic() - begun_s < 2.0
    gate.open()


@pytest.mark.gen_test
async def test_silent_store_is_asked_once(watching: Any) -> None:
    """Regular checks add no calls for a session whose last one has no answer yet."""
    it = watching(Deaf(), Rechecks(every_s=0.05, patience_s=60.0))
    gate = it.store.gate("states")
    it.watch.hold(await it.new())
    await gate.reached()
    await asyncio.sleep(0.3)

    assert it.store.calls["states"] == 1
    gate.open()


@pytest.mark.gen_test
async def test_patience_ends_while_all_workers_wait(watching: Any) -> None:
    """A session that is not even asked for, because the store is silent, is given up in time as well."""
    it = watching(Deaf(), Rechecks(every_s=3600.0, patience_s=0.5))
    gates = []
    for _ in range(WORKERS):
        gates.append(it.store.gate("states"))
        it.watch.hold(await it.new())
        await gates[-1].reached()
    begun_s = time.monotonic()

    assert await end_of(it.watch.hold(await it.new())) is End.STORE_DOWN
    assert 0.5 <= time.monotonic() - begun_s < 2.0
    for gate in gates:
        gate.open()


@pytest.mark.gen_test
async def test_everybody_is_asked_for_when_the_store_is_back(watching: Any) -> None:
    """Of many sessions without an answer each is confirmed in time, also where no push brings that about."""

    class Polled(Deaf):
        async def states(
            self, credentials: Iterable[Credential], *, now_ms: int
        ) -> dict[Credential, Record | Absent]:
            asked = set(credentials)
            if "states" in self.fail and len(asked) == 1:
                raise self.fail["states"]
            return await super().states(asked, now_ms=now_ms)

    it = watching(Polled(), Rechecks(every_s=0.3, patience_s=2.5))
    records = [live_record() for _ in range(6 * SLICE)]
    await created_many(it.store, records)
    it.store.fail["states"] = StoreUnavailable("states")
    held = [it.watch.hold(record) for record in records]
    await it.settle(6)
    await asyncio.sleep(0.2)
    del it.store.fail["states"]
    await it.store.destroy(records[-1].handle, now_ms=now_ms())

    assert await end_of(held[-1]) is End.SIGNED_OUT
    await asyncio.sleep(2.5)
    assert {each.end for each in held[:-1]} == {None}


@pytest.mark.gen_test
async def test_what_was_signed_out_did_not_expire(watching: Any) -> None:
    """A sign-out that is found only at the time of the expiry is told as such, also by the events."""
    it = watching(Deaf(), Rechecks(every_s=3600.0))
    record = await it.new(expires_ms=now_ms() + 1000)
    held = it.watch.hold(record)
    await it.settle()
    await it.store.destroy(record.handle, now_ms=now_ms())

    assert await end_of(held) is End.SIGNED_OUT
    assert it.events == []
