"""One fault at a time on one set-up, with a load beneath, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.faults.journal import Journal
from tests.faults.site import PATIENCE_S, Crowd, Site, count_logged
from tests.support.running import get

# A visit has some thirty steps. The machine may be busy.
WARM_UP_S = 30.0
QUIET_S = 1.0
"""How long nothing may fail until a set-up has recovered."""
RECOVERY_S = 20.0
"""How long that may take."""
FAULT_S = 90.0


ENDS = frozenset({"503", "no answer"})
"""How requests may fail when a process of the server ends, or is ended."""


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
        expected: How requests may fail; see `ENDS` for a fault that ends processes of the server.

    An AssertionError of *inflict*, a request of its own that fails, and a time-out are broken promises.
    """

    name: str
    inflict: Callable[[Any], Awaitable[None]]
    excused: Mapping[str, str] = field(default_factory=dict)
    in_smoke: bool = False
    aftermath: Callable[[Any], Awaitable[None]] | None = None
    is_seamless: bool = False
    expected: frozenset[str] = frozenset({"503"})


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
    journal, problems, recovery_s = crowd.journal, [], 0.0
    before = Counter(count_logged(set_up.sites))
    lives = [asyncio.ensure_future(person.live()) for person in crowd.people]
    try:
        await _until(lambda: all(person.visits for person in crowd.people), lives, WARM_UP_S)
        problems += [f"before the fault: {kind}" for kind in journal.errors]
        problems += await step("it was inflicted", fault.inflict(set_up))
        healed = time.monotonic()
        problems += await _recovery(journal, lives, healed)
        recovery_s = journal.served_again(healed) - healed
        if fault.aftermath is not None:
            problems += await step("what failed came back", fault.aftermath(set_up))
            problems += await _recovery(journal, lives, time.monotonic())
        for person in crowd.people:
            person.is_over = True
        await asyncio.gather(*lives)
        await asyncio.gather(*(person.check() for person in crowd.people))
        if await asyncio.to_thread(get, set_up.base, "/readyz") != 200:
            problems.append("/readyz is not 200 after it")
    except Exception as exc:  # the other faults and the table go on
        problems.append(f"after it: {exc!r}")
    finally:
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        crowd.close()
    logged = Counter(count_logged(set_up.sites)) - before
    return Result(store, fault, journal, recovery_s, [*problems, *broken_promises(journal, fault, logged)])


async def step(what: str, work: Awaitable[None]) -> list[str]:
    """Await *work*, and return what was wrong with it."""
    try:
        async with asyncio.timeout(FAULT_S):
            await work
    except Exception as exc:  # the other faults and the table go on
        return [f"while {what}: {str(exc) or repr(exc)}"]
    return []


def broken_promises(journal: Journal, fault: Fault, logged: Mapping[str, int]) -> list[str]:
    """Return which promises were broken.

    Args:
        logged: How often the servers logged a traceback, and the end of a worker process.
    """
    expected = frozenset() if fault.is_seamless else fault.expected
    columns = {
        "lost": len(journal.lost),
        "back": len(journal.back),
        "signed out": len(journal.signed_out),
        "somebody else": len(journal.somebody_else),
        "traceback": logged.get("traceback", 0),
        "process ended": 0 if fault.expected == ENDS else logged.get("process ended", 0),
        f"request of {PATIENCE_S:.0f} s": int(journal.longest_s >= PATIENCE_S),
        **{f"failed with {kind}": n for kind, n in journal.errors.items() if kind not in expected},
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


async def _recovery(journal: Journal, lives: list[asyncio.Future[None]], healed: float) -> list[str]:
    """Wait until all is quiet since *healed*, and return what is wrong if that takes too long."""
    try:
        await _until(lambda: journal.is_quiet(healed, for_s=QUIET_S), lives, RECOVERY_S)
    except TimeoutError:
        return ["it did not recover"]
    return []
