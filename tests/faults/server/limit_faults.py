"""Faults that use up what a process may have: connections and descriptors."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count, islice
from pathlib import Path
from typing import Protocol

from tests.faults.server.guests import Served, connected
from tests.faults.server.processes import logged
from tests.faults.site import PATIENCE_S, Site
from tests.faults.suite import Fault
from tests.support.running import until

MOST = 200
"""The limit of --max-connections, of each process."""
IDLE = 600
ADDRESSES = 20
"""So many that no limit of one address is reached."""
SHORT_S = 3.0
RELIEVED = "accepting all connections again"
"""The line of the log after a shortage; until then another shortage has no line of its own."""
LEFT = 4
"""Descriptors that a process may open before it has none left."""


class Limited(Served, Protocol):
    """A set-up of several processes."""

    site: Site
    log_file: Path


@asynccontextmanager
async def _idle(set_up: Limited, number: int) -> AsyncIterator[None]:
    """Hold connections that send nothing."""
    async with AsyncExitStack() as stack:
        for each in range(number):
            source = f"127.0.0.{2 + each % ADDRESSES}"
            await stack.enter_async_context(connected(set_up.base, source=source))
        yield


async def _flooded(set_up: Limited) -> None:
    reached = logged(set_up.log_file, "connections are open, the limit of --max-connections;", 2)
    async with logged(set_up.log_file, RELIEVED, 2), reached, _idle(set_up, IDLE):
        await asyncio.sleep(SHORT_S)


async def _no_descriptors(set_up: Limited) -> None:
    """Take the free descriptors away while pages, which have templates, are asked for."""
    children = set_up.site.running.children()
    before = resource.prlimit(children[0], resource.RLIMIT_NOFILE)
    for pid in children:
        await asyncio.to_thread(
            until, lambda pid=pid: len(_used(pid)) < MOST / 2, "the end of the last fault"
        )
    reached = logged(set_up.log_file, "cannot accept a connection: Too many open files", len(children))
    async with logged(set_up.log_file, RELIEVED, len(children)), reached:
        for pid in children:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (_limit(pid), before[1]))
        try:
            async with asyncio.timeout(SHORT_S + PATIENCE_S), _idle(set_up, 8 * LEFT):
                statuses = [await _page(set_up.base) for _ in range(20)]
        finally:
            for pid in children:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert {*statuses} <= {"", "200", "503"}, f"statuses of pages: {statuses}"


def _limit(pid: int) -> int:
    """Return the limit below which the process *pid* has `LEFT` free descriptors."""
    used = _used(pid)
    free = (number for number in count() if number not in used)
    return next(islice(free, LEFT, None))


def _used(pid: int) -> set[int]:
    """Return the descriptors that the process *pid* has open."""
    return {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}


async def _page(base: str) -> str:
    """Return the status of the page for signing in; empty if there is no answer."""
    await asyncio.sleep(SHORT_S / 20)
    try:
        async with connected(base) as (reader, writer):
            writer.write(b"GET /login HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n")
            line = await asyncio.wait_for(reader.readline(), PATIENCE_S)
    except OSError:
        return ""
    return line.decode()[9:12]


LIMIT_FAULTS = (
    Fault("600 idle connections, with a limit of 200", _flooded, is_seamless=True),
    Fault("descriptors run out for 3 s", _no_descriptors),
)
