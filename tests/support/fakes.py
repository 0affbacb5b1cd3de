"""Controllable implementations of the interfaces: a clock, and a store that fails or waits on request."""

from __future__ import annotations

import asyncio
from typing import Any

from stormcellar.stores import Store
from stormcellar.testing import FaultyStore

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


class SteeredStore(FaultyStore):
    """A `FaultyStore` that can also make calls wait, and whose failures last until the test removes them.

    `fail["apply"] = StoreUnavailable("x")` raises before the call reaches the store, `fail_after` after the
    store executed it. `gate("apply")` returns a `Gate` at which the next such call waits. The same applies to
    its counters, for example `fail["take"]`.
    """

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.fail: dict[str, Exception] = {}
        self.fail_after: dict[str, Exception] = {}
        self._gates: dict[str, list[Gate]] = {}

    def gate(self, name: str) -> Gate:
        gate = Gate()
        self._gates.setdefault(name, []).append(gate)
        return gate

    async def call(self, name: str, operation: Any, *args: Any, **kwargs: Any) -> Any:
        async def steered() -> Any:
            if waiting := self._gates.get(name):
                await waiting.pop(0).arrive()
            if name in self.fail:
                raise self.fail[name]
            result = await operation(*args, **kwargs)
            if name in self.fail_after:
                raise self.fail_after[name]
            return result

        return await super().call(name, steered)


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
