"""`SessionWatch` with very many sessions: its work leaves the event loop to others."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from stormcellar.sessions.live import check_queue
from stormcellar.sessions.live.check_queue import UNTIL_YIELD, WORKERS, CheckQueue
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.sessions.live.watched import End, Watched
from stormcellar.stores import Credential, StoreUnavailable
from stormcellar.stores.memory import MemoryStore
from tests.sessions.live.watching import LATE_S, NEVER, Watching, end_of, live_record, now_ms
from tests.support.fakes import SteeredStore

MANY = 600


class SizesStore(SteeredStore):
    """A store that records which sessions each call of `states` asks for."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.asked: list[set[Credential]] = []

    async def states(self, credentials: Any, *, now_ms: int) -> Any:
        """Record and pass on."""
        self.asked.append(set(credentials))
        return await super().states(credentials, now_ms=now_ms)


@asynccontextmanager
async def held_by_many(rechecks: Rechecks) -> AsyncIterator[tuple[Watching, list[Watched]]]:
    """Hold `MANY` sessions, each of which was checked once."""
    it = Watching(SizesStore(), rechecks, {"ada": 0})
    held = [it.watch.hold(await it.new())]
    await it.settle()  # the store is heard from now on, so it does not have all checked again
    held += [it.watch.hold(await it.new()) for _ in range(MANY - 1)]
    asked: list[set[Credential]] = it.store.asked
    async with asyncio.timeout(LATE_S):
        while sum(map(len, asked)) < MANY:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    asked.clear()
    try:
        yield it, held
    finally:
        await it.watch.aclose()


async def most_at_once(held: list[Watched], end: Any) -> int:
    """Return how many of *held* are told of their end without a turn for others, while *end* runs."""
    turn, told = 0, Counter[int]()

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    for each in held:
        each.on_end(lambda _: told.update([turn]))
    counting = asyncio.create_task(count_turns())
    await end
    async with asyncio.timeout(LATE_S):
        while told.total() < len(held):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    counting.cancel()
    return max(told.values())


async def all_asked(it: Watching, held: list[Watched]) -> None:
    """Wait until the store was asked for each of *held*."""
    wanted = {each.credential for each in held}
    async with asyncio.timeout(LATE_S):
        while not wanted <= set().union(*it.store.asked):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.gen_test
async def test_regular_checks_are_spread_over_the_interval() -> None:
    """All are checked, although they were opened at once, and never many of them together."""
    async with held_by_many(Rechecks(every_s=3.0)) as (it, held):
        await all_asked(it, held)

        assert max(map(len, it.store.asked)) < MANY / 4


@pytest.mark.gen_test
async def test_all_are_checked_after_a_pause_of_the_process() -> None:
    """As soon as it goes on: none waits for its turn once more."""
    async with held_by_many(Rechecks(every_s=2.0)) as (it, held):
        it.store.asked.clear()
        time.sleep(2.5)  # noqa: ASYNC251  as SIGSTOP does
        async with asyncio.timeout(1.0):
            await all_asked(it, held)


@pytest.mark.gen_test
async def test_store_is_not_asked_for_nothing() -> None:
    """Although several checks may run at once."""
    async with held_by_many(NEVER) as (it, held):
        for _ in range(2):  # with the second, every worker is idle
            it.store.asked.clear()
            it.watch.check(held[0])
            await it.settle()

        assert [len(each) for each in it.store.asked] == [1]


@pytest.mark.gen_test
async def test_announced_end_is_checked_before_the_others() -> None:
    """However many wait for their regular check."""
    async with held_by_many(NEVER) as (it, held):
        it.watch._queue.add(held, is_urgent=False)
        it.watch.check(held[-1])
        await it.settle()

        assert held[-1].credential in it.store.asked[0]


@pytest.mark.gen_test
async def test_store_that_answers_again_is_asked_for_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one pause, not after one for each slice, so that none is given up behind very many others."""
    monkeypatch.setattr(check_queue, "AGAIN_S", 2.0)
    async with held_by_many(Rechecks(every_s=0.2, patience_s=60.0)) as (it, held):
        it.store.fail["states"] = StoreUnavailable("states")
        async with asyncio.timeout(LATE_S):
            while not all(map(it.watch._queue.is_asking, held)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        failed = set(held)
        del it.store.fail["states"]
        async with asyncio.timeout(2 * check_queue.AGAIN_S):
            while failed:
                await asyncio.sleep(0.005)
                failed = {each for each in failed if it.watch._queue.is_asking(each)}

        assert Counter(each.end for each in held) == {None: MANY}


@pytest.mark.gen_test
async def test_other_work_has_its_turn_while_very_many_end() -> None:
    """The ends that were announced together are told a few at a time."""
    async with held_by_many(NEVER) as (it, held):

        async def end_all() -> None:
            for each in held:
                await it.store.destroy(each.record.handle, now_ms=now_ms())

        assert await most_at_once(held, end_all()) <= WORKERS * UNTIL_YIELD
        assert {each.end for each in held} == {End.SIGNED_OUT}


@pytest.mark.gen_test
async def test_other_work_has_its_turn_while_very_many_are_given_up() -> None:
    """Because the store is down for too long."""
    async with held_by_many(Rechecks(every_s=0.2, patience_s=2.0)) as (it, held):

        async def stay_down() -> None:
            it.store.fail["states"] = StoreUnavailable("states")

        assert await most_at_once(held, stay_down()) <= 2 * UNTIL_YIELD
        assert {each.end for each in held} == {End.STORE_DOWN}


@pytest.mark.gen_test
async def test_answer_that_comes_while_others_are_given_up_counts() -> None:
    """Those that are late are given up in parts, and the store may answer between them."""
    held, given_up = [Watched(live_record()) for _ in range(3)], []

    def give_up(watched: Watched) -> None:
        given_up.append(watched)
        queue.discard(held[-1])

    async def confirm(asked: Sequence[Watched]) -> None:
        raise AssertionError("no worker runs")

    queue = CheckQueue(confirm, give_up, longest_s=0.01)
    queue.add(held, is_urgent=False)
    giving_up = asyncio.create_task(queue.give_up())
    async with asyncio.timeout(LATE_S):
        while any(map(queue.is_asking, held)):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    giving_up.cancel()

    assert given_up == held[:2]


@pytest.mark.gen_test
async def test_other_work_has_its_turn_during_a_stop() -> None:
    """A server that stops goes on with the requests in flight."""
    async with held_by_many(NEVER) as (it, held):
        visitors = [Watched(live_record()) for _ in range(MANY)]  # they have no session to hold
        it.watch.at_stop |= {partial(each.finish, End.STOPPED) for each in visitors}

        assert await most_at_once([*held, *visitors], it.watch.aclose()) <= UNTIL_YIELD
        assert {each.end for each in held} == {End.STOPPED}


@pytest.mark.gen_test
async def test_holder_that_lets_go_during_a_stop_is_told_nothing(watching: Any) -> None:
    """A stream whose client has gone has no block to cancel any more."""
    it = watching()
    record = await it.new()
    held = [it.watch.hold(record) for _ in range(3 * UNTIL_YIELD)]
    last = list(it.watch._held)[-1]
    closing = asyncio.ensure_future(it.watch.aclose())
    await asyncio.sleep(0)
    it.watch.release(last)
    await closing

    assert {each.end for each in held if each is not last} == {End.STOPPED}
    assert last.end is None


@pytest.mark.gen_test
async def test_event_is_set_whenever_it_is_asked_for() -> None:
    """Before the end or after it."""
    record = live_record()
    early, late = Watched(record), Watched(record)
    waiting = asyncio.create_task(end_of(early))
    await asyncio.sleep(0)
    for each in (early, late):
        each.finish(End.EXPIRED)

    assert (await waiting, await end_of(late)) == (End.EXPIRED, End.EXPIRED)


def test_change_of_something_else_is_no_new_expiry() -> None:
    """A session that was used, or whose ID was renewed, may end when it did before."""
    record, expiries = live_record(), []
    watched = Watched(record)
    watched.on_new_expiry = lambda: expiries.append(watched.record.expires_ms)
    for changed in (replace(record, seen_ms=record.seen_ms + 1), replace(record, expires_ms=1)):
        watched.confirm(changed)

    assert expiries == [1]


def test_data_is_not_kept_in_memory() -> None:
    """Only what identifies the session is."""
    record = live_record(data={"cart": b"[]"})

    assert (Watched(record).record.data, Watched(record).record.credential) == ({}, record.credential)
