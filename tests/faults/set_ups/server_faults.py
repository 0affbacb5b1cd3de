"""Faults of the server itself: two processes on one Redis server that loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path

from tests.faults.server.client_faults import CLIENT_FAULTS
from tests.faults.server.file_faults import FILE_FAULTS
from tests.faults.server.guests import add_guests, introduce
from tests.faults.server.limit_faults import LIMIT_FAULTS, MOST
from tests.faults.server.processes import LogPipe, freeze, logged, start_again
from tests.faults.set_ups.redis_faults import DURABLE
from tests.faults.site import Site
from tests.faults.suite import ENDS, Fault, Suite
from tests.support.backends import Server
from tests.support.running import connect, until

FROZEN_S = 3.0
"""Longer than the time-out of a store call."""

# It logs to a pipe that is there. Otherwise a new key would sign only after seconds.
PROGRAM = """
import os, sys
os.dup2(os.open("log", os.O_WRONLY), 2)
from stormcellar.cli.main import main
from stormcellar.runtime import server
server.SIGN_AFTER_S = 0.5
sys.exit(main())
"""


class TwoProcesses:
    """A site of two processes, its files, and the reader of its log."""

    def __init__(self, directory: Path, site: Site, log: LogPipe) -> None:
        self.sites = [site]
        self.site = site
        self.base = site.base
        self.data = directory / "data"
        self.log_file = directory / "stderr"
        self.audit_log = directory / "audit.log"
        self.log = log

    async def reload(self) -> None:
        """Send SIGHUP, and wait until each process has read everything."""
        async with logged(self.audit_log, '"reloaded"', 2):
            self.site.running.process.send_signal(signal.SIGHUP)


@asynccontextmanager
async def two_processes(directory: Path) -> AsyncIterator[TwoProcesses]:
    """Start them; stop them at the end."""
    with ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, Server("redis8", extra=DURABLE))
        options = (
            *("--processes", "2", f"--audit-log={directory / 'audit.log'}"),
            f"--max-connections={MOST}",
        )
        site = Site(directory, server.url, *options, program=("-c", PROGRAM))
        add_guests(directory / "data")
        log = LogPipe(directory, directory / "stderr")
        stack.callback(log.close)
        stack.callback(site.close)
        await asyncio.to_thread(site.start)
        await introduce(site.base)
        yield TwoProcesses(directory, site, log)


async def _one_killed(server: TwoProcesses) -> None:
    running = server.site.running
    killed, other = running.children()
    async with logged(server.log_file, f"process {killed} ended with status 137; starting another"):
        os.kill(killed, signal.SIGKILL)
    await asyncio.to_thread(
        until, lambda: len({*running.children()} - {killed}) == 2, "the start of another process"
    )
    assert other in running.children(), "both processes were replaced"


async def _one_frozen(server: TwoProcesses) -> None:
    """Freeze a process that has a connection: what is sent on it waits, and all others are served."""
    frozen, other = server.site.running.children()
    connection = connect(server.base)
    os.kill(other, signal.SIGSTOP)
    try:
        assert await asyncio.to_thread(_healthz, connection) == 200
    finally:
        os.kill(other, signal.SIGCONT)
    freezing = asyncio.ensure_future(freeze([frozen], FROZEN_S))
    began = time.monotonic()
    await asyncio.sleep(0)
    status = await asyncio.to_thread(_healthz, connection)
    took_s = time.monotonic() - began
    connection.close()
    await freezing
    assert (status, took_s > 0.9 * FROZEN_S) == (200, True), "the process was not frozen"


def _healthz(connection: HTTPConnection) -> int:
    connection.request("GET", "/healthz")
    response = connection.getresponse()
    response.read()
    return response.status


async def _both_frozen(server: TwoProcesses) -> None:
    await freeze(server.site.running.children(), FROZEN_S)


async def _parent_killed(server: TwoProcesses) -> None:
    status = await start_again(server.site, signal.SIGKILL)
    assert status == -signal.SIGKILL


async def _restarted(server: TwoProcesses) -> None:
    status = await start_again(server.site, signal.SIGTERM)
    assert status == 0, f"the server stopped with status {status}"


async def _reloaded(server: TwoProcesses) -> None:
    for _ in range(5):
        await server.reload()


SERVER = Suite(
    "server, on Redis",
    two_processes,
    (
        Fault("one of two processes is killed", _one_killed, expected=ENDS),
        Fault("one of two processes is frozen for 3 s", _one_frozen),
        Fault("both processes are frozen for 3 s", _both_frozen),
        Fault("the parent process is killed, and the server started", _parent_killed, expected=ENDS),
        Fault("SIGTERM, and a start", _restarted, in_smoke=True, expected=ENDS),
        Fault("SIGHUP, five times", _reloaded, is_seamless=True),
        *FILE_FAULTS,
        *CLIENT_FAULTS,
        *LIMIT_FAULTS,
    ),
)
