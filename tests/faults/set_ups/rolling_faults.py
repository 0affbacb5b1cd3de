"""Faults of two servers behind HAProxy that nobody notices. TLS from HAProxy to the servers."""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from tests.faults.server.processes import logged, start_again
from tests.faults.set_ups.redis_faults import DURABLE
from tests.faults.site import Site
from tests.faults.suite import Fault, Suite
from tests.support.backends import Server, free_port
from tests.support.certificates import Authority
from tests.support.haproxy import answers, haproxy
from tests.support.running import until

NAMES = ("a", "b")
DRAIN_S = 3.0
"""Longer than HAProxy takes to notice that a server will stop."""
INTERVAL_S = 0.5
"""Between two checks, and how long one may take to connect: the machine may be busy."""


class Balanced:
    """Two servers, each of two processes, behind one address."""

    def __init__(self, base: str, sites: list[Site], logs: list[Path], authority: Authority) -> None:
        self.base = base
        self.sites = sites
        self.logs = logs
        self.authority = authority

    def is_ready(self, site: Site) -> bool:
        """Whether *site* itself answers."""
        return answers(site.base, trusted=self.authority.files.authority)

    async def certificate(self, site: Site) -> bytes | None:
        """Return the certificate that *site* shows to a new connection."""
        port = int(site.base.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=self.authority.files.client())
        shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
        writer.close()
        return shown.getpeercert(binary_form=True)


@asynccontextmanager
async def balanced(directory: Path) -> AsyncIterator[Balanced]:
    """Start them; stop them at the end."""
    assert shutil.which("haproxy"), "install HAProxy (Debian: haproxy)"
    authority = await asyncio.to_thread(_authority, directory)
    options = (
        *("--processes", "2", f"--drain={DRAIN_S}s", "--behind-proxy", "127.0.0.1/32"),
        *authority.files.flags,
    )
    with ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, Server("redis8", extra=DURABLE))
        sites: list[Site] = []
        for name in NAMES:
            sites.append(Site(directory / name, server.url, *options, twin=sites[0] if sites else None))
            stack.callback(sites[-1].close)
            await asyncio.to_thread(sites[-1].start)
        ports = [int(site.base.rpartition(":")[2]) for site in sites]
        checks = f"inter {INTERVAL_S * 1000:.0f}ms ssl verify required ca-file {authority.files.authority}"
        running = haproxy(directory, free_port(), *ports, options=checks)
        base = await asyncio.to_thread(stack.enter_context, running)
        yield Balanced(base, sites, [directory / name / "stderr" for name in NAMES], authority)


def _authority(directory: Path) -> Authority:
    directory.mkdir(parents=True)
    authority = Authority(directory)
    authority.issue()
    return authority


async def _restarted(balanced: Balanced) -> None:
    for site in balanced.sites:
        status = await start_again(site, signal.SIGTERM)
        assert status == 0, f"a server stopped with status {status}"
        await asyncio.to_thread(until, lambda site=site: balanced.is_ready(site))


async def _certified(balanced: Balanced) -> None:
    """Renew the certificate, and have every process of both servers read it."""
    before = await balanced.certificate(balanced.sites[0])
    await asyncio.to_thread(balanced.authority.issue)
    for site, log in zip(balanced.sites, balanced.logs, strict=True):
        async with logged(log, '"reloaded"', 2):
            site.running.process.send_signal(signal.SIGHUP)
    for site in balanced.sites:
        # Several in a row: either process may answer.
        shown = [await balanced.certificate(site) for _ in range(8)]
        assert before not in shown, "a process still shows the certificate from before"


ROLLING = Suite(
    "Redis, two servers behind HAProxy",
    balanced,
    (
        Fault("each server is stopped and started again in turn", _restarted, is_seamless=True),
        Fault("the certificate is renewed, and SIGHUP", _certified, is_seamless=True),
    ),
)
