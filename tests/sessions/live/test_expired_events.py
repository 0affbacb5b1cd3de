"""The event `expired`: once in each process that held the session, with the user, and for no other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest
from tornado.ioloop import IOLoop

from stormcellar.events import Event, Kind
from stormcellar.sessions.live.watched import End, Watched
from stormcellar.stores import Handle
from stormcellar.stores.memory import MemoryStore
from tests.support.core import SAFE, Core, Visitor
from tests.support.fakes import Clock

LATE_S = 15.0


async def silence() -> AsyncGenerator[Handle | None, None]:
    """Announce nothing, for ever."""
    await asyncio.Event().wait()
    yield None


class Process(Core):
    """A process that keeps its events, and hears no announcement."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        super().__init__(store, clock=clock)
        self.store.gone = silence  # type: ignore[method-assign]
        self.events: list[Event] = []
        self.manager.events.subscribe(self.events.append)

    async def holds(self, visitor: Visitor) -> Watched:
        """Hold the session of *visitor*."""
        record = await self.stored(visitor.sid)
        return self.manager.watch.hold(record)

    async def end_of(self, watched: Watched) -> End | None:
        """Check the session of *watched*, and return why it is over."""
        self.manager.watch.check(watched)
        await asyncio.wait_for(watched.ended.wait(), LATE_S)
        return watched.end

    def told(self, *kinds: Kind) -> list[tuple[Kind, str | None, str | None]]:
        """Return kind, user and reason of each event of these kinds."""
        return [(each.kind, each.user, each.reason) for each in self.events if each.kind in kinds]


@pytest.fixture
def processes(io_loop: IOLoop) -> Iterator[list[Process]]:
    """Two processes with one store and one clock."""
    store, clock = MemoryStore(), Clock()
    made = [Process(store, clock) for _ in range(2)]
    yield made
    for each in made:
        io_loop.run_sync(each.manager.watch.aclose)


@pytest.mark.gen_test
async def test_each_process_that_held_it_tells_once(processes: list[Process]) -> None:
    """However many sockets it had; the cookie that comes back later is `rejected`, not `expired` again."""
    first, second = processes
    visitor = Visitor(first)
    await visitor.signs_in("ada")
    held = [(each, await each.holds(visitor)) for each in (first, first, second)]
    first.clock.advance(first.manager.lifetime.idle_s)

    ends = [await process.end_of(watched) for process, watched in held]
    await visitor.request(SAFE)

    assert ends == [End.EXPIRED] * 3
    assert first.told(Kind.EXPIRED, Kind.REJECTED) == [
        (Kind.EXPIRED, "ada", None),
        (Kind.REJECTED, None, "unknown"),
    ]
    assert second.told(Kind.EXPIRED, Kind.REJECTED) == [(Kind.EXPIRED, "ada", None)]


@pytest.mark.gen_test
async def test_session_of_a_visitor(processes: list[Process]) -> None:
    """It has no user."""
    first, _ = processes
    visitor = Visitor(first)
    await visitor.writes(a=1)
    held = await first.holds(visitor)
    first.clock.advance(first.manager.lifetime.anonymous_s)

    assert await first.end_of(held) is End.EXPIRED
    assert first.told(Kind.EXPIRED) == [(Kind.EXPIRED, None, None)]


@pytest.mark.gen_test
async def test_sign_out_that_is_noticed_late_is_no_expiry(processes: list[Process]) -> None:
    """The announcement was lost, and the next check comes after the time of the expiry."""
    first, second = processes
    visitor = Visitor(first)
    await visitor.signs_in("ada")
    held = await second.holds(visitor)
    first.clock.advance(first.manager.lifetime.idle_s - 5)
    session = await visitor.request()
    await session.logout()
    second.clock.advance(10)

    assert await second.end_of(held) is End.SIGNED_OUT
    assert second.told(Kind.EXPIRED) == []
    assert first.told(Kind.DESTROYED) == [(Kind.DESTROYED, "ada", "logout")]
