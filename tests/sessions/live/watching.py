"""A watch on a store, for tests that end sessions and stop the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from stormcellar.events import Event, Events
from stormcellar.sessions.account_check import AccountCheck
from stormcellar.sessions.live.watch import Rechecks, SessionWatch
from stormcellar.sessions.live.watched import End
from stormcellar.stores import Handle, Record
from stormcellar.stores.conformance.cases import MINUTE, new_record
from stormcellar.stores.memory import MemoryStore
from tests.support.core import AccountTimes
from tests.support.fakes import SteeredStore

LATE_S = 15.0
NEVER = Rechecks(every_s=3600.0)
OFTEN = Rechecks(every_s=0.05)


def now_ms() -> int:
    """Return Unix time in milliseconds."""
    return int(time.time() * 1000)


def live_record(**fields: Any) -> Record:
    """Return a new record of a session that begins now."""
    begun = now_ms()
    times = dict.fromkeys(("created_ms", "rotated_ms", "auth_ms", "seen_ms"), begun)
    return new_record(**{"user": "ada", **times, "expires_ms": begun + MINUTE, **fields})


class Deaf(SteeredStore):
    """A store that announces nothing until `speak` is set."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.says: asyncio.Queue[Handle | None] = asyncio.Queue()

    async def gone(self) -> AsyncGenerator[Handle | None, None]:
        """Yield what a test says."""
        while True:
            yield await self.says.get()


class Watching:
    """A watch on a store."""

    def __init__(self, store: Any, rechecks: Rechecks, users: dict[str, int]) -> None:
        self.store = store
        self.events: list[Event] = []
        events = Events(now_ms)
        events.subscribe(self.events.append)
        self.users = users
        accounts = AccountCheck(AccountTimes(users), now_ms=now_ms)
        self.watch = SessionWatch(store, accounts=accounts, events=events, now_ms=now_ms, rechecks=rechecks)

    async def new(self, **fields: Any) -> Record:
        """Create a session."""
        record = live_record(**fields)
        await self.store.create(record)
        return record

    async def settle(self, checks: int = 1) -> None:
        """Wait until the store was asked so many times more."""
        wanted = self.store.calls["states"] + checks
        async with asyncio.timeout(LATE_S):
            while self.store.calls["states"] < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.01)


async def end_of(watched: Any) -> End | None:
    """Return why *watched* is over, once it is."""
    await asyncio.wait_for(watched.ended.wait(), LATE_S)
    return watched.end  # type: ignore[no-any-return]


async def followed(watched: Any, verifier: str) -> None:
    """Wait until *watched* has this verifier."""
    async with asyncio.timeout(LATE_S):
        while watched.credential.verifier != verifier:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
