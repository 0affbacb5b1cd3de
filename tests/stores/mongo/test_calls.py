"""Nothing of ours cancels the driver: a caller that gives up or is cancelled only stops waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
from pymongo.errors import AutoReconnect

from stormcellar.stores import Delta, Rule, StoreError, StoreUnavailable, Tally
from stormcellar.stores.conformance.cases import NOW, new_record, new_user
from stormcellar.stores.mongo import MongoStore
from tests.stores.mongo.samples import MUTATIONS, READS

TIMEOUT_S = 0.2
RULE = Rule(limit=1, first_wait_ms=1, longest_wait_ms=1, keep_ms=1)
LARGE = Delta(put={"n": b"x" * (2 << 20)})

Operation = Callable[[MongoStore], Awaitable[object]]


class Hanging:
    """A collection, its client and its cursors: each coroutine waits for the gate and then fails."""

    name = "test_sessions"
    # The driver knows nothing of its servers.
    topology_description = SimpleNamespace(server_descriptions=dict, topology_type_name="Unknown")

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = self.ended = self.cancelled = 0

    def __getattr__(self, name: str) -> Self:
        return self

    def __call__(self, *_: object, **__: object) -> Self:
        """Return a cursor, or what is awaited."""
        return self

    def __await__(self) -> Generator[Any, None, None]:
        return self._hang().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        await self

    async def _hang(self) -> None:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.ended += 1
        raise AutoReconnect("late")


async def loads(store: MongoStore) -> object:
    """Load several sessions, in one batch."""
    return await asyncio.gather(*(READS["load"](store, new_record()) for _ in range(3)))


async def writes(store: MongoStore) -> object:
    """Write several sessions, in one batch."""
    return await asyncio.gather(*(MUTATIONS["apply"][1](store, new_record()) for _ in range(3)))


OPERATIONS: dict[str, Operation] = {
    **{
        name: lambda store, call=call: call(store, new_record(user=new_user()))
        for name, call in {**READS, **{name: call for name, (_, call) in MUTATIONS.items()}}.items()
    },
    "loads": loads,
    "writes": writes,
    "large write": lambda store: store.apply(new_record().credential, LARGE, now_ms=NOW, expires_ms=None),
    "scan": lambda store: anext(store.scan(now_ms=NOW)),
    "ping": lambda store: store.ping(),
    "take": lambda store: store.counters().take("key", RULE, now_ms=NOW),
    "peek": lambda store: store.counters().peek("key", now_ms=NOW),
    "give_back": lambda store: store.counters().give_back("key", Tally(True, 1, 0), now_ms=NOW),
    "forget": lambda store: store.counters().forget("key"),
}


@asynccontextmanager
async def hanging(timeout_s: float) -> AsyncIterator[tuple[MongoStore, Hanging, list[Any]]]:
    """A store whose driver hangs, and what asyncio logs meanwhile."""
    logged: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    driver = Hanging()
    store = MongoStore(cast(Any, driver), timeout_s=timeout_s)
    try:
        yield store, driver, logged
    finally:
        driver.gate.set()
        await store.aclose()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.gen_test
async def test_a_time_out_does_not_cancel_the_driver(name: str) -> None:
    """The caller hears StoreUnavailable in time. The driver goes on, and its late error is nobody's."""
    async with hanging(TIMEOUT_S) as (store, driver, logged):
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(OPERATIONS[name](store), TIMEOUT_S + 5)
        then = (driver.begun > 0, driver.ended, driver.cancelled)

    assert then == (True, 0, 0)
    assert (driver.begun, driver.cancelled, logged) == (driver.ended, 0, [])


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.gen_test
async def test_a_cancelled_caller_does_not_cancel_the_driver(name: str) -> None:
    """Its call goes on to its end, also one in a batch without any other caller; nothing is logged."""
    async with hanging(60) as (store, driver, logged):
        caller = asyncio.ensure_future(OPERATIONS[name](store))
        while not driver.begun:  # noqa: ASYNC110
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller], timeout=5)
        then = (caller.cancelled(), driver.ended)

    assert then == (True, 0)
    assert (driver.begun, driver.cancelled, logged) == (driver.ended, 0, [])


@pytest.mark.parametrize("ends_by", ["aclose", "cancel"])
@pytest.mark.gen_test
async def test_a_listener_that_ends_does_not_cancel_the_driver(ends_by: str) -> None:
    """Whoever stops listening is rid of it at once; what the driver reads meanwhile ends by itself."""
    async with hanging(60) as (store, driver, logged):
        listening = asyncio.ensure_future(anext(store.gone(), None))
        while not driver.begun:  # noqa: ASYNC110
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(store.aclose() if ends_by == "aclose" else asyncio.sleep(0))
        if ends_by == "cancel":
            listening.cancel()
        await asyncio.wait([listening], timeout=5)
        then = (listening.done(), driver.ended)
        driver.gate.set()
        await closing

    assert then == (True, 0)
    assert (driver.begun, driver.cancelled, logged) == (driver.ended, 0, [])


@pytest.mark.gen_test
async def test_closing_does_not_wait_for_a_driver_that_hangs() -> None:
    """The store gives running calls one time-out to end, and cancels none of them."""
    async with hanging(TIMEOUT_S) as (store, driver, logged):
        calls = [asyncio.ensure_future(call(store)) for call in OPERATIONS.values()]
        while not driver.begun:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.wait_for(store.aclose(), TIMEOUT_S + 5)
        then = (driver.ended, driver.cancelled)
        answers = await asyncio.gather(*calls, return_exceptions=True)

    assert then == (0, 0)
    assert all(isinstance(answer, StoreError) for answer in answers)
    assert logged == []


@pytest.mark.gen_test
async def test_a_lost_lock_of_the_driver_is_an_outage() -> None:
    """A RuntimeError from the driver's locks is StoreUnavailable, not a fault of the application."""
    async with hanging(TIMEOUT_S) as (store, driver, _):

        async def lost() -> None:
            raise RuntimeError("Lock is not acquired.")

        driver._hang = lost  # type: ignore[method-assign]
        answers = await asyncio.gather(*(call(store) for call in OPERATIONS.values()), return_exceptions=True)

    assert [type(answer) for answer in answers] == [StoreUnavailable] * len(OPERATIONS)
