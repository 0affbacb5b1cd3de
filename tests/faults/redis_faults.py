"""Faults of one Redis server whose persistence loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from tests.faults.network_faults import LONG_S, NETWORK_FAULTS
from tests.faults.site import Site
from tests.faults.suite import Fault, Suite
from tests.support.backends import Server
from tests.support.network import Network

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class SingleRedis:
    """One server behind a network that can fail, and a site of two processes."""

    def __init__(self, server: Server, network: Network, site: Site) -> None:
        self.server = server
        self.networks = [network]
        self.sites = [site]
        self.base = site.base


@asynccontextmanager
async def single_redis(directory: Path) -> AsyncIterator[SingleRedis]:
    """Start them; stop them at the end."""
    with ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, Server("redis8", extra=DURABLE))
        async with Network(server.port) as network:
            site = Site(directory, f"redis://127.0.0.1:{network.port}/0", "--processes", "2")
            stack.callback(site.close)
            await asyncio.to_thread(site.start)
            yield SingleRedis(server, network, site)


async def _killed(redis: SingleRedis) -> None:
    redis.server.kill()
    await asyncio.sleep(1.0)
    await asyncio.to_thread(redis.server.start)


async def _frozen(redis: SingleRedis) -> None:
    await asyncio.to_thread(redis.server.pause)
    await asyncio.sleep(LONG_S)
    redis.server.resume()


REDIS = Suite(
    "Redis",
    single_redis,
    (
        Fault("the server is killed and started again", _killed, in_smoke=True),
        Fault("the server is frozen for 4 s", _frozen),
        *NETWORK_FAULTS,
    ),
)
