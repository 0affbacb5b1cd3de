"""`SessionWatch` at the moment of an expiry, on every store: exact, extended by others, and told once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from stormcellar.events import Kind
from stormcellar.sessions.live.watched import End
from stormcellar.stores import Store, open_store
from stormcellar.stores.conformance.cases import HOUR, NOTHING
from stormcellar.stores.memory import MemoryStore
from tests.sessions.live.watching import NEVER, end_of, now_ms

EXACT_MS = 500
LIFE_MS = 1500

OpenAgain = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite", "redis8", "redis_cluster", "mongo", "mongo_rs"])
def open_again(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[OpenAgain]:
    """A function that opens the same store as another process would; the memory has one process only."""
    prefix, opened = f"test-{secrets.token_hex(6)}", [MemoryStore()] if request.param == "memory" else []

    def again() -> Store:
        if request.param == "memory":
            return opened[0]
        opened.append(open_store(request.getfixturevalue(request.param).url, prefix=prefix))
        return opened[-1]

    yield again
    for store in opened:
        io_loop.run_sync(store.aclose)


async def told_at(held: Any) -> int:
    """Return when *held* was told that its session is over by time."""
    assert await end_of(held) is End.EXPIRED
    return now_ms()


@pytest.mark.gen_test
@pytest.mark.parametrize("limit", ["idle", "absolute"])
async def test_end_by_time_is_exact(watching: Any, open_again: OpenAgain, limit: str) -> None:
    """Within half a second of the moment, without any regular check."""
    it = watching(open_again(), NEVER)
    over_ms = now_ms() + LIFE_MS
    deadline_ms = over_ms + (HOUR if limit == "idle" else 0)
    held = it.watch.hold(await it.new(expires_ms=over_ms, deadline_ms=deadline_ms))

    assert 0 <= await told_at(held) - over_ms < EXACT_MS


@pytest.mark.gen_test
async def test_activity_in_another_process_extends_it(watching: Any, open_again: OpenAgain) -> None:
    """Nothing announces it; the session ends at its new expiry, to the moment."""
    it, elsewhere = watching(open_again(), NEVER), open_again()
    record = await it.new(expires_ms=now_ms() + LIFE_MS)
    held = it.watch.hold(record)
    extended_ms = record.expires_ms + LIFE_MS
    await asyncio.sleep(0.2)
    await elsewhere.apply(record.credential, NOTHING, now_ms=now_ms(), expires_ms=extended_ms)

    assert 0 <= await told_at(held) - extended_ms < EXACT_MS


@pytest.mark.gen_test
async def test_each_process_tells_an_expiry_once(watching: Any, open_again: OpenAgain) -> None:
    """With the user, however many hold the session there."""
    processes = [watching(open_again(), NEVER) for _ in range(2)]
    record = await processes[0].new(expires_ms=now_ms() + LIFE_MS)
    held = [it.watch.hold(record) for it in processes for _ in range(3)]

    await asyncio.gather(*map(told_at, held))

    for it in processes:
        expired = [event for event in it.events if event.kind is Kind.EXPIRED]
        assert [(event.handle, event.user) for event in expired] == [(record.handle, "ada")]
