"""Faults of a Redis cluster of three primaries and three replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from tests.faults.set_ups.network_faults import NETWORK_FAULTS
from tests.faults.set_ups.redis_faults import (
    ACCOUNT,
    DATA_UNDONE,
    DURABLE,
    LOGIN,
    UNDONE,
    change_account,
    sign_out_while_full,
)
from tests.faults.site import PROGRAM, Site
from tests.faults.suite import Fault, Suite
from tests.support.backends import Server
from tests.support.cluster import begin_move, end_move, move_keys, slot_of
from tests.support.cluster_nodes import Cluster, Node, cluster_of_six
from tests.support.redis_orders import until

FROZEN_S = 3.0
"""Longer than the nodes wait for each other, and longer than the time-out of a store call."""
MOVED_SLOTS = 22


class RedisCluster:
    """The nodes, each behind a network that can fail, and a site of two processes."""

    def __init__(self, cluster: Cluster, site: Site) -> None:
        self.cluster = cluster
        self.networks = [node.network for node in cluster.nodes]
        self.sites = [site]
        self.base = site.base
        self.failed: Node | None = None
        """The node that its replica has replaced."""


@asynccontextmanager
async def redis_cluster(
    directory: Path, *, query: str = "", program: tuple[str, ...] = PROGRAM
) -> AsyncIterator[RedisCluster]:
    """Start them; stop them at the end."""
    async with cluster_of_six((*DURABLE, *ACCOUNT)) as cluster:
        with ExitStack() as stack:
            places = ",".join(f"127.0.0.1:{node.network.port}" for node in cluster.nodes)
            url = f"redis+cluster://{LOGIN}@{places}{query}"
            site = Site(directory, url, "--processes", "2", program=program)
            stack.callback(site.close)
            await asyncio.to_thread(site.start)
            yield RedisCluster(cluster, site)


async def _some_primary(redis: RedisCluster) -> tuple[Node, Node]:
    """Return a primary that is to fail, and its replica."""
    await redis.cluster.until_healthy()
    primary, *_ = await redis.cluster.primaries()
    redis.failed = primary
    return primary, await redis.cluster.replica_of(primary)


async def _killed(redis: RedisCluster) -> None:
    primary, replica = await _some_primary(redis)
    primary.server.kill()
    await redis.cluster.until_promoted(replica, apart_from=primary)


async def _comes_back(redis: RedisCluster) -> None:
    assert redis.failed is not None
    await asyncio.to_thread(redis.failed.server.start)
    await redis.cluster.until_healthy()


async def _killed_for_a_while(redis: RedisCluster) -> None:
    await _killed(redis)
    await _comes_back(redis)


async def _frozen(redis: RedisCluster) -> None:
    primary, replica = await _some_primary(redis)
    await asyncio.to_thread(primary.server.pause)
    await redis.cluster.until_promoted(replica, apart_from=primary)


async def _continues(redis: RedisCluster) -> None:
    assert redis.failed is not None
    redis.failed.server.resume()
    await redis.cluster.until_healthy()


async def _cut_off(redis: RedisCluster) -> None:
    primary, replica = await _some_primary(redis)
    redis.cluster.cut_off(primary)
    primary.network.stall()
    await redis.cluster.until_promoted(replica, apart_from=primary)


async def _split(redis: RedisCluster) -> None:
    primary, replica = await _some_primary(redis)
    redis.cluster.cut_off(primary)
    await redis.cluster.until_promoted(replica, apart_from=primary)


async def _is_reconnected(redis: RedisCluster) -> None:
    assert redis.failed is not None
    redis.failed.network.resume()
    redis.cluster.reconnect(redis.failed)
    await until(lambda: _has_given_way(redis))
    await redis.cluster.until_healthy()


async def _has_given_way(redis: RedisCluster) -> bool:
    assert redis.failed is not None
    return not await redis.failed.is_primary()


async def _failovers(redis: RedisCluster) -> None:
    for primary in await redis.cluster.primaries():
        replica = await redis.cluster.replica_of(primary)
        await replica.order("CLUSTER FAILOVER")
        await until(replica.is_primary)
        await redis.cluster.until_healthy()


async def _rolling_restart(redis: RedisCluster) -> None:
    for node in redis.cluster.nodes:
        await asyncio.to_thread(node.server.stop)
        await asyncio.to_thread(node.server.start)
        await redis.cluster.until_healthy()


async def _move_slots(source: Node, target: Node) -> None:
    """Move slots with keys from one node to another, those that are in use most first."""
    keys = sorted(await source.order("KEYS", "*"), key=lambda key: ":u:" not in key)
    slots = list(dict.fromkeys(slot_of(key) for key in keys))[:MOVED_SLOTS]
    assert len(slots) == MOVED_SLOTS
    for slot in slots:
        for step in (begin_move, move_keys, end_move):
            await asyncio.to_thread(step, slot, source.server, target.server)


async def _resharded(redis: RedisCluster) -> None:
    source, target, _ = await redis.cluster.primaries()
    await _move_slots(source, target)


async def _grown(redis: RedisCluster) -> None:
    source, *_ = await redis.cluster.primaries()
    await redis.cluster.grow()
    await _move_slots(source, redis.cluster.spare)


async def _two_frozen(redis: RedisCluster) -> None:
    frozen = (await redis.cluster.primaries())[:2]
    for node in frozen:
        await asyncio.to_thread(node.server.pause)
    await asyncio.sleep(FROZEN_S)
    for node in frozen:
        node.server.resume()
    await redis.cluster.until_healthy()


async def _full(redis: RedisCluster) -> None:
    async def holder(handle: str) -> Server:
        [found] = [
            node.server
            for node in await redis.cluster.primaries()
            if await node.order("KEYS", f"*:s:{handle}")
        ]
        return found

    await sign_out_while_full(redis.base, holder)


async def _no_rights(redis: RedisCluster) -> None:
    primary, *_ = await redis.cluster.primaries()
    await change_account([primary.server], "-@all", "+@all")


async def _split_for_a_while(redis: RedisCluster) -> None:
    await _split(redis)
    await _is_reconnected(redis)


CLUSTER = Suite(
    "Redis Cluster",
    redis_cluster,
    (
        Fault("a primary is killed", _killed, UNDONE, in_smoke=True, aftermath=_comes_back),
        Fault("a primary is frozen until it is replaced", _frozen, UNDONE, aftermath=_continues),
        Fault("a primary is cut off until it is replaced", _cut_off, UNDONE, aftermath=_is_reconnected),
        Fault("a primary is cut off from the other nodes only", _split, UNDONE, aftermath=_is_reconnected),
        Fault("each replica becomes the primary on request", _failovers, is_seamless=True),
        Fault("all nodes are restarted, one after the other", _rolling_restart),
        Fault("22 slots in use move to another node", _resharded, is_seamless=True),
        Fault("two of three primaries are frozen for 3 s", _two_frozen),
        Fault("the memory of one node is full for 2 s", _full),
        Fault("the rights on one node are revoked for 2 s", _no_rights),
        *NETWORK_FAULTS,
        Fault("22 slots in use move to a new node", _grown, is_seamless=True),
    ),
)
CLUSTER_WAITS = Suite(
    "Redis Cluster, ?wait=1",
    partial(redis_cluster, query="?wait=1"),
    (
        Fault("a primary is killed, and comes back", _killed_for_a_while, DATA_UNDONE),
        Fault("a primary is cut off from the other nodes for a while", _split_for_a_while, DATA_UNDONE),
    ),
)
