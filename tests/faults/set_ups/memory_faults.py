"""Faults of one process with the memory store."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tornado.simple_httpclient import SimpleAsyncHTTPClient

from tests.faults.browser import Browser
from tests.faults.journal import Journal
from tests.faults.server.client_faults import CLIENT_FAULTS
from tests.faults.server.guests import add_guests, introduce
from tests.faults.server.processes import freeze, start_again
from tests.faults.site import PATIENCE_S, Site
from tests.faults.suite import ENDS, Fault, Suite

FROZEN_S = 2.0
MAX_MEMORY = "1MB"
FILLING = 600
"""Sessions of visitors that are more than this memory holds, with `VALUE` in each."""
VALUE = 2000 * "x"
AT_ONCE = 4

EMPTY = "The memory store is empty after a restart: everybody signs in again, and what they wrote is gone."


class OneProcess:
    """One process whose sessions are in its memory."""

    def __init__(self, site: Site, data: Path) -> None:
        self.sites = [site]
        self.site = site
        self.base = site.base
        self.data = data


@asynccontextmanager
async def one_process(directory: Path) -> AsyncIterator[OneProcess]:
    """Start it; stop it at the end."""
    site = Site(directory, "memory", "--max-memory", MAX_MEMORY)
    try:
        add_guests(directory / "data")
        await asyncio.to_thread(site.start)
        await introduce(site.base)
        yield OneProcess(site, directory / "data")
    finally:
        site.close()


async def _frozen(memory: OneProcess) -> None:
    await freeze([memory.site.running.process.pid], FROZEN_S)


async def _full(memory: OneProcess) -> None:
    """Fill the memory by sessions of visitors: the oldest of them are deleted for new ones."""
    http = SimpleAsyncHTTPClient(force_instance=True, max_clients=AT_ONCE)
    visitors = [Browser(http, memory.base, Journal(), patience_s=PATIENCE_S) for _ in range(FILLING)]
    try:
        for first in range(0, FILLING, AT_ONCE):
            batch = visitors[first : first + AT_ONCE]
            await asyncio.gather(*(visitor.send("PATCH", "/session", {"value": VALUE}) for visitor in batch))
        oldest = await visitors[0].send("GET", "/session")
        latest = await visitors[-1].send("GET", "/session")
    finally:
        http.close()
    assert latest.body["data"] == {"value": VALUE}
    assert oldest.body["data"] == {}, "the memory was not full"


async def _restarted(memory: OneProcess) -> None:
    status = await start_again(memory.site, signal.SIGTERM)
    assert status == 0, f"the server stopped with status {status}"


MEMORY = Suite(
    "memory",
    one_process,
    (
        Fault("the process is frozen for 2 s", _frozen, is_seamless=True),
        Fault("visitors fill the memory", _full, is_seamless=True, in_smoke=True),
        *CLIENT_FAULTS,
        Fault(
            "SIGTERM, and a start", _restarted, excused={"lost": EMPTY, "signed out": EMPTY}, expected=ENDS
        ),
    ),
)
