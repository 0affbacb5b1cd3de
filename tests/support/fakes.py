"""Controllable implementations of the interfaces: a clock, and a store that fails or waits on request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Self

from stormcellar.stores import (
    Absent,
    Announcing,
    Counters,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    Rule,
    Scannable,
    Store,
    StoreOptions,
    Tally,
)

# A whole second, so that no test depends on rounding.
START_S = 1_900_000_000.0


class Clock:
    """Unix time that only a test changes."""

    def __init__(self, now_s: float = START_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class SteeredStore(Announcing, Scannable):
    """Forwards every call to another store; a test can count calls, make them fail or make them wait.

    `fail["apply"] = StoreUnavailable("x")` raises before the call reaches the store, `fail_after` after the
    store executed it. `gate("apply")` returns a `Gate` at which the next such call waits. The same applies to
    its counters, for example `fail["take"]`.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.fail: dict[str, Exception] = {}
        self.fail_after: dict[str, Exception] = {}
        self.calls: Counter[str] = Counter()
        self._gates: dict[str, list[Gate]] = {}

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        raise ValueError("only tests create this store")

    def gate(self, name: str) -> Gate:
        gate = Gate()
        self._gates.setdefault(name, []).append(gate)
        return gate

    async def _pass_on(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return await self.steer(name, getattr(self.inner, name), *args, **kwargs)

    async def steer(self, name: str, call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        self.calls[name] += 1
        if waiting := self._gates.get(name):
            await waiting.pop(0).arrive()
        if name in self.fail:
            raise self.fail[name]
        result = await call(*args, **kwargs)
        if name in self.fail_after:
            raise self.fail_after[name]
        return result

    async def create(self, record: Record) -> None:
        await self._pass_on("create", record)

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        return await self._pass_on("load", credential, now_ms=now_ms)  # type: ignore[no-any-return]

    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        return await self._pass_on(  # type: ignore[no-any-return]
            "apply", credential, delta, now_ms=now_ms, expires_ms=expires_ms
        )

    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        return await self._pass_on("rotate", credential, rotation, now_ms=now_ms)  # type: ignore[no-any-return]

    async def find(self, handle: Handle, *, now_ms: int) -> Record | None:
        return await self._pass_on("find", handle, now_ms=now_ms)  # type: ignore[no-any-return]

    async def destroy(self, handle: Handle, *, now_ms: int) -> bool:
        return await self._pass_on("destroy", handle, now_ms=now_ms)  # type: ignore[no-any-return]

    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        return await self._pass_on("of_user", user, now_ms=now_ms)  # type: ignore[no-any-return]

    async def states(
        self, credentials: Iterable[Credential], *, now_ms: int
    ) -> dict[Credential, Record | Absent]:
        return await self._pass_on("states", credentials, now_ms=now_ms)  # type: ignore[no-any-return]

    def gone(self) -> AsyncGenerator[Handle | None, None]:
        assert isinstance(self.inner, Announcing)
        return self.inner.gone()

    def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        assert isinstance(self.inner, Scannable)
        return self.inner.scan(now_ms=now_ms)

    def counters(self) -> Counters:
        counters = self.inner.counters()
        assert counters is not None
        return SteeredCounters(counters, self.steer)

    async def ping(self) -> None:
        await self._pass_on("ping")

    async def aclose(self) -> None:
        await self.inner.aclose()


class SteeredCounters(Counters):
    """The counters of a `SteeredStore`."""

    def __init__(self, inner: Counters, steer: Callable[..., Awaitable[Any]]) -> None:
        self.inner = inner
        self._steer = steer

    async def take(self, key: str, rule: Rule, *, now_ms: int) -> Tally:
        return await self._steer("take", self.inner.take, key, rule, now_ms=now_ms)  # type: ignore[no-any-return]

    async def peek(self, key: str, *, now_ms: int) -> Tally:
        return await self._steer("peek", self.inner.peek, key, now_ms=now_ms)  # type: ignore[no-any-return]

    async def give_back(self, key: str, tally: Tally, *, now_ms: int) -> None:
        await self._steer("give_back", self.inner.give_back, key, tally, now_ms=now_ms)

    async def forget(self, key: str) -> None:
        await self._steer("forget", self.inner.forget, key)


class Gate:
    """Makes one call wait: `await gate.reached()` returns when it waits, `gate.open()` continues it."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def arrive(self) -> None:
        self._reached.set()
        await self._opened.wait()

    async def reached(self) -> None:
        await asyncio.wait_for(self._reached.wait(), 10)

    def open(self) -> None:
        self._opened.set()
