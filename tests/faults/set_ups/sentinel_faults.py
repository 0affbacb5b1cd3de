"""Faults of a Redis primary with two replicas, which three Sentinels watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from stormcellar.stores.conformance.faults import Network
from tests.faults.set_ups.network_faults import SHORT_S
from tests.faults.set_ups.redis_faults import ACCOUNT, DATA_UNDONE, DURABLE, LOGIN, UNDONE
from tests.faults.site import PROGRAM, Site
from tests.faults.suite import Fault, Suite
from tests.support.backends import Server, free_port
from tests.support.redis_orders import follow, info, order, until

SENTINELS, REPLICAS = 3, 2
WATCH = {"down-after-milliseconds": 1000, "failover-timeout": 3000}
# By default they take 8 s to make a replica of a primary that comes back, and may ask nobody for a second.
PERIODS = ("PING-PERIOD", 200, "PUBLISH-PERIOD", 250, "INFO-PERIOD", 500)


class Watched:
    """The servers, each behind a network that can fail, the Sentinels, and a site of two processes."""

    def __init__(self, servers: dict[Server, Network], sentinels: list[Server], site: Site) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self.sites = [site]
        self.base = site.base
        self.failed: Server | None = None
        """The primary that a replica has replaced."""

    async def primary(self) -> Server:
        """Return the server that every Sentinel names as the primary, of those that run."""
        found: list[Server] = []

        async def agree() -> bool:
            alive = [sentinel for sentinel in self.sentinels if sentinel.is_running]
            named = [await order(each, "SENTINEL GET-MASTER-ADDR-BY-NAME", "primary") for each in alive]
            ports = {int(port) for _, port in named}
            found[:] = [server for server, network in self.servers.items() if ports == {network.port}]
            return len(found) == 1

        await until(agree)
        return found[0]

    async def until_replaced(self, former: Server) -> None:
        """Wait until another server than *former* is the primary."""
        await until(lambda: self._is_replaced(former))

    async def until_whole(self) -> None:
        """Wait until every replica has the primary's data, and every Sentinel sees all of them."""
        await until(self._is_whole)

    async def _is_replaced(self, former: Server) -> bool:
        primary = await self.primary()
        return primary is not former and (await info(primary, "replication"))["role"] == "master"

    async def _is_whole(self) -> bool:
        primary = await self.primary()
        replicas = await info(primary, "replication")
        if replicas["connected_slaves"] != REPLICAS:
            return False
        states = [await order(each, "SENTINEL MASTER", "primary") for each in self.sentinels]
        return all(_is_well(state) for state in states)


def _is_well(state: dict[str, object]) -> bool:
    """Whether a Sentinel sees the primary, and knows every other server."""
    return (state["flags"], state["num-slaves"], state["num-other-sentinels"]) == (
        "master",
        REPLICAS,
        SENTINELS - 1,
    )


async def _start_server(stack: AsyncExitStack) -> tuple[Server, Network]:
    port = free_port()
    network = await stack.enter_async_context(Network(port))
    announced = ("--replica-announce-port", str(network.port), "--repl-diskless-sync-delay", "0")
    server = Server("redis8", port=port, extra=(*DURABLE, *ACCOUNT, *announced))
    stack.callback(server.close)
    await asyncio.to_thread(server.start)
    return server, network


async def _start_sentinel(stack: AsyncExitStack, watched_port: int) -> Server:
    sentinel = Server("sentinel")
    stack.callback(sentinel.close)
    await asyncio.to_thread(sentinel.start)
    quorum = SENTINELS // 2 + 1
    await order(sentinel, "SENTINEL MONITOR", "primary", "127.0.0.1", watched_port, quorum)
    await order(sentinel, "SENTINEL DEBUG", *PERIODS)
    for name, value in WATCH.items():
        await order(sentinel, "SENTINEL SET", "primary", name, value)
    return sentinel


@asynccontextmanager
async def watched(
    directory: Path, *, query: str = "", program: tuple[str, ...] = PROGRAM
) -> AsyncIterator[Watched]:
    """Start them; stop them at the end."""
    async with AsyncExitStack() as stack:
        started = await asyncio.gather(*(_start_server(stack) for _ in range(1 + REPLICAS)))
        (primary, network), *replicas = started
        await asyncio.gather(*(follow(replica, primary, port=network.port) for replica, _ in replicas))
        sentinels = await asyncio.gather(*(_start_sentinel(stack, network.port) for _ in range(SENTINELS)))
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        url = f"redis+sentinel://{LOGIN}@{places}/primary/0{query}"
        site = Site(directory, url, "--processes", "2", program=program)
        stack.callback(site.close)
        await asyncio.to_thread(site.start)
        redis = Watched(dict(started), list(sentinels), site)
        await redis.until_whole()
        yield redis


async def _primary(redis: Watched) -> Server:
    """Return the primary, which is to fail."""
    await redis.until_whole()
    redis.failed = await redis.primary()
    return redis.failed


async def _killed(redis: Watched) -> None:
    primary = await _primary(redis)
    primary.kill()
    await redis.until_replaced(primary)


async def _comes_back(redis: Watched) -> None:
    assert redis.failed is not None
    await asyncio.to_thread(redis.failed.start)
    await redis.until_whole()


async def _killed_for_a_while(redis: Watched) -> None:
    await _killed(redis)
    await _comes_back(redis)


async def _frozen(redis: Watched) -> None:
    primary = await _primary(redis)
    await asyncio.to_thread(primary.pause)
    await redis.until_replaced(primary)


async def _continues(redis: Watched) -> None:
    assert redis.failed is not None
    redis.failed.resume()
    await redis.until_whole()


async def _cut_off(redis: Watched) -> None:
    primary = await _primary(redis)
    redis.servers[primary].stall()
    await redis.until_replaced(primary)


async def _is_reconnected(redis: Watched) -> None:
    assert redis.failed is not None
    redis.servers[redis.failed].resume()
    await redis.until_whole()


async def _ordered(redis: Watched) -> None:
    primary = await _primary(redis)
    await order(redis.sentinels[0], "SENTINEL FAILOVER", "primary")
    await redis.until_replaced(primary)
    await redis.until_whole()


async def _without_sentinels(redis: Watched, count: int) -> None:
    """Kill the first Sentinels, and start them again after a while."""
    killed = redis.sentinels[:count]
    for sentinel in killed:
        sentinel.kill()
    if count < SENTINELS:
        # The others are asked where the primary is.
        redis.servers[await redis.primary()].cut()
    await asyncio.sleep(SHORT_S)
    for sentinel in killed:
        await asyncio.to_thread(sentinel.start)
        await order(sentinel, "SENTINEL DEBUG", *PERIODS)
    await redis.until_whole()


async def _replica_killed(redis: Watched) -> None:
    primary = await redis.primary()
    replica = next(server for server in redis.servers if server is not primary)
    replica.kill()
    await asyncio.sleep(SHORT_S)
    await asyncio.to_thread(replica.start)
    await redis.until_whole()


async def _rolling_restart(redis: Watched) -> None:
    for server in redis.servers:
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        await redis.until_whole()


SENTINEL = Suite(
    "Redis Sentinel",
    watched,
    (
        Fault("the primary is killed", _killed, UNDONE, aftermath=_comes_back),
        Fault("the primary is frozen until it is replaced", _frozen, UNDONE, aftermath=_continues),
        Fault("the primary is cut off until it is replaced", _cut_off, UNDONE, aftermath=_is_reconnected),
        Fault("a Sentinel is told to replace the primary", _ordered, UNDONE),
        Fault("one Sentinel is killed for 2 s", lambda redis: _without_sentinels(redis, 1)),
        Fault("all Sentinels are killed for 2 s", lambda redis: _without_sentinels(redis, SENTINELS)),
        Fault("a replica is killed for 2 s", _replica_killed, is_seamless=True),
        Fault("all servers are restarted, one after the other", _rolling_restart),
    ),
)
SENTINEL_WAITS = Suite(
    "Redis Sentinel, ?wait=2",
    partial(watched, query="?wait=2"),
    (
        Fault("the primary is killed, and comes back", _killed_for_a_while, DATA_UNDONE),
        Fault("a Sentinel is told to replace the primary", _ordered, DATA_UNDONE),
    ),
)
