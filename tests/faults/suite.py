"""One fault at a time on one set-up, with a load beneath, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.faults.browser import Failed
from tests.faults.journal import Journal
from tests.faults.site import PATIENCE_S, Crowd, Site, count_tracebacks
from tests.support.running import get

# A visit has some thirty steps. The machine may be busy.
WARM_UP_S = 30.0
QUIET_S = 1.0
"""How long nothing may fail until a set-up has recovered."""
RECOVERY_S = 20.0
"""How long that may take."""
FAULT_S = 90.0


class SetUp(Protocol):
    """Servers of one store and the sites that use them."""

    base: str
    """Where the people go."""
    sites: list[Site]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        inflict: Causes it and returns as soon as the store, or the server, could serve again.
        excused: For each column that need not be 0, why. Columns: `lost`, `back`, `signed out`.
        in_smoke: Whether `make test` has it as well.
        aftermath: What happens when the set-up has recovered: for instance, the failed server comes back.
        is_seamless: Whether no request may fail. *inflict* then checks itself that the fault was felt.

    An AssertionError of *inflict*, a request of its own that fails, and a time-out are broken promises.
    """

    name: str
    inflict: Callable[[Any], Awaitable[None]]
    excused: Mapping[str, str] = field(default_factory=dict)
    in_smoke: bool = False
    aftermath: Callable[[Any], Awaitable[None]] | None = None
    is_seamless: bool = False


@dataclass(frozen=True, slots=True)
class Suite:
    """The faults of one set-up.

    Args:
        store: Its name in the table.
        open: Starts the servers, with files in the given directory.
    """

    store: str
    open: Callable[[Path], AbstractAsyncContextManager[Any]]
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What one fault did."""

    store: str
    fault: Fault
    journal: Journal
    recovery_s: float
    problems: list[str]
    """What is not as promised; empty if all is well."""


async def run(suite: Suite, faults: tuple[Fault, ...], directory: Path) -> AsyncIterator[Result]:
    """Run some of the faults of *suite* on one set-up, one after another."""
    async with suite.open(directory) as set_up:
        for number, fault in enumerate(faults):
            yield await _suffer(suite.store, set_up, fault, seed=number)


async def _suffer(store: str, set_up: SetUp, fault: Fault, *, seed: int) -> Result:
    crowd = Crowd(set_up.base, seed=seed)
    journal = crowd.journal
    traces = count_tracebacks(set_up.sites)
    lives = [asyncio.ensure_future(person.live()) for person in crowd.people]
    try:
        await _until(lambda: all(person.visits for person in crowd.people), lives, WARM_UP_S)
        problems = [f"before the fault: {kind}" for kind in journal.errors]
        try:
            async with asyncio.timeout(FAULT_S):
                await fault.inflict(set_up)
        except (AssertionError, Failed, TimeoutError) as exc:
            problems.append(f"while it was inflicted: {str(exc) or repr(exc)}")
        healed = time.monotonic()
        has_recovered = await _recovers(journal, lives, healed)
        recovery_s = max(0.0, journal.last_failure(default=healed) - healed)
        if fault.aftermath is not None:
            async with asyncio.timeout(FAULT_S):
                await fault.aftermath(set_up)
            has_recovered = await _recovers(journal, lives, time.monotonic()) and has_recovered
        for person in crowd.people:
            person.is_over = True
        await asyncio.gather(*lives)
        if not has_recovered:
            problems.append("it did not recover")
        try:
            await asyncio.gather(*(person.check() for person in crowd.people))
        except Failed:
            problems.append("requests fail after it")
        if await asyncio.to_thread(get, set_up.base, "/readyz") != 200:
            problems.append("/readyz is not 200 after it")
    finally:
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        crowd.close()
    traces = count_tracebacks(set_up.sites) - traces
    return Result(store, fault, journal, recovery_s, [*problems, *broken_promises(journal, fault, traces)])


def broken_promises(journal: Journal, fault: Fault, traces: int) -> list[str]:
    """Return which promises were broken.

    Args:
        traces: How many tracebacks the servers logged.
    """
    is_expected = () if fault.is_seamless else ("503", "no answer")
    columns = {
        "lost": len(journal.lost),
        "back": len(journal.back),
        "signed out": len(journal.signed_out),
        "somebody else": len(journal.somebody_else),
        "traceback": traces,
        f"request of {PATIENCE_S:.0f} s": int(journal.longest_s >= PATIENCE_S),
        **{f"failed with {kind}": n for kind, n in journal.errors.items() if kind not in is_expected},
    }
    return [f"{name}: {number}" for name, number in columns.items() if number and name not in fault.excused]


async def _until(holds: Callable[[], bool], lives: list[asyncio.Future[None]], limit_s: float) -> None:
    """Wait until *holds*; raise the exception of a life that has ended, or TimeoutError."""
    async with asyncio.timeout(limit_s):
        while not holds():
            for life in lives:
                if life.done():
                    life.result()
            await asyncio.sleep(0.02)


async def _recovers(journal: Journal, lives: list[asyncio.Future[None]], healed: float) -> bool:
    """Wait until nothing has failed for a while; return False if that takes too long."""
    try:
        await _until(
            lambda: time.monotonic() - max(healed, journal.last_failure(default=healed)) > QUIET_S,
            lives,
            RECOVERY_S,
        )
    except TimeoutError:
        return False
    return True
