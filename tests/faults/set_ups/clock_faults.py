"""Faults of the clock: that of the application, and with it the difference from the clock of the store."""

from __future__ import annotations

import asyncio
import mmap
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from stormcellar.accounts.account_file import Account, AccountFile
from tests.faults.server.guests import Guest, add_guests, guests, introduce
from tests.faults.set_ups.redis_faults import DURABLE
from tests.faults.site import Site
from tests.faults.suite import Fault, Suite
from tests.support.backends import Server

MINUTE_S = 60.0
IDLE_S = 60 * MINUTE_S
"""After this time without activity a session ends."""
STAY_S = 2.0
"""How long the clock is wrong."""
_STATE = "dqd"
"""Seconds that every process is ahead; one process, and the seconds that it is further ahead."""

_MOVED = f"""
import mmap, os, struct, time
with open("clock", "r+b") as file:
    state = mmap.mmap(file.fileno(), 0)
real = time.time
def moved():
    everybody, pid, further = struct.unpack_from({_STATE!r}, state)
    return real() + everybody + (further if pid == os.getpid() else 0)
time.time = moved
"""
_MAIN = """
import sys
from stormcellar.cli.main import main
sys.exit(main())
"""

JUMPED = "The clock of the application jumped past the end of every session, so they ended."


class Clock:
    """The clock of the server in *directory*."""

    def __init__(self, directory: Path) -> None:
        path = directory / "clock"
        path.write_bytes(bytes(struct.calcsize(_STATE)))
        with path.open("r+b") as file:
            self._state = mmap.mmap(file.fileno(), 0)

    def set(self, ahead_s: float, *, pid: int = 0, further_s: float = 0.0) -> None:
        """Set how far all processes are ahead of this one, and how much further the process *pid* is."""
        struct.pack_into(_STATE, self._state, 0, ahead_s, pid, further_s)


class Clocked:
    """A site of two processes whose clock can be moved."""

    def __init__(self, site: Site, data: Path, clock: Clock) -> None:
        self.sites = [site]
        self.site = site
        self.base = site.base
        self.data = data
        self.clock = clock


@asynccontextmanager
async def clocked(
    directory: Path, *, store: str = "redis8", extra: tuple[str, ...] = DURABLE, prelude: str = ""
) -> AsyncIterator[Clocked]:
    """Start it on a store of this kind; stop it at the end. *prelude* is run before the program."""
    with ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, Server(store, extra=extra))
        limits = (f"--idle={IDLE_S:.0f}s", f"--anonymous-idle={IDLE_S:.0f}s", "--reauth=12h")
        site = Site(
            directory, server.url, "--processes", "2", *limits, program=("-c", _MOVED + prelude + _MAIN)
        )
        stack.callback(site.close)
        add_guests(directory / "data")
        AccountFile(directory / "data" / "accounts.json").edit(_age)
        clock = Clock(directory)
        await asyncio.to_thread(site.start)
        await introduce(site.base)
        yield Clocked(site, directory / "data", clock)


def _age(accounts: dict[str, Account]) -> None:
    """Date the last change of every account two hours back: no sign-in from before the change counts."""
    for name, account in accounts.items():
        accounts[name] = replace(account, valid_after_ms=account.valid_after_ms - 2 * 3_600_000)


async def _left_s(guest: Guest) -> float:
    """Return how many seconds the session lasts, by the clock of the process that answers."""
    return float((await guest.send("GET", "/session")).body["idle_expires_in"])


async def _forward_and_back(clocked: Clocked) -> None:
    async with guests(clocked, 2) as found:
        clocked.clock.set(10 * MINUTE_S)
        left_s = await _left_s(found[0])
        assert 0 <= IDLE_S - 10 * MINUTE_S - left_s < MINUTE_S, "the clock did not move"
        await asyncio.sleep(STAY_S)
        clocked.clock.set(0.0)
        await asyncio.sleep(STAY_S)


async def _one_ahead(clocked: Clocked) -> None:
    [pid, _] = clocked.site.running.children()
    async with guests(clocked, 1) as found:
        clocked.clock.set(0.0, pid=pid, further_s=20.0)
        left_s = {await _left_s(found[0]) for _ in range(20)}
        await asyncio.sleep(2 * STAY_S)
        clocked.clock.set(0.0)
    assert 15.0 < max(left_s) - min(left_s) < 40.0, "the processes have the same time"


async def _behind(clocked: Clocked) -> None:
    """Sign in while the clock is half an hour behind that of the store; the sessions go on."""
    clocked.clock.set(-30 * MINUTE_S)
    async with guests(clocked, 2) as found:
        await asyncio.sleep(STAY_S)
        clocked.clock.set(0.0)
        left_s = await _left_s(found[0])
        await asyncio.sleep(STAY_S)
    assert 0 <= IDLE_S - 30 * MINUTE_S - left_s < MINUTE_S, "the clock did not move"


async def _to_the_end(clocked: Clocked) -> None:
    """Move the clock to just before the end of a session, past it, past the end of all others, and back."""
    async with guests(clocked, 1) as found:
        left_s = await _left_s(found[0])
        clocked.clock.set(left_s - 10.0)
        before, _ = await found[0].is_accepted(found[0].session_cookie or "")
        found[0].is_in_doubt = True
        clocked.clock.set(left_s + MINUTE_S)
        after, _ = await found[0].is_accepted(found[0].session_cookie or "")
        clocked.clock.set(left_s + 2 * IDLE_S)
        await asyncio.sleep(STAY_S)
        clocked.clock.set(0.0)
    assert (before, after) == (True, False), "a session did not end at the right time"


FAULTS = (
    Fault("the clock goes 10 minutes forward and back", _forward_and_back, is_seamless=True),
    Fault("one of two processes is 20 s ahead", _one_ahead, is_seamless=True),
    Fault("half an hour behind the store", _behind, is_seamless=True),
    Fault(
        "the clock goes past the end of all sessions and back",
        _to_the_end,
        excused={"lost": JUMPED, "signed out": JUMPED},
        is_seamless=True,
    ),
)
CLOCKS = Suite("clocks, on Redis", clocked, (replace(FAULTS[0], in_smoke=True), *FAULTS[1:]))
CLOCKS_MONGO = Suite("clocks, on MongoDB", partial(clocked, store="mongo", extra=()), FAULTS)
