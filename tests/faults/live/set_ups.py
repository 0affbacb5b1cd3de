"""Every set-up with open sockets, and the faults that may concern them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from stormcellar.sessions.live.watched import End
from tests.faults.live.program import SHORT_PATIENCE_S, prelude, program
from tests.faults.live.trial import Trial, Trials
from tests.faults.server.processes import freeze
from tests.faults.set_ups.clock_faults import CLOCKS, IDLE_S, MINUTE_S, Clocked, clocked
from tests.faults.set_ups.cluster_faults import CLUSTER, RedisCluster, redis_cluster
from tests.faults.set_ups.mongo_faults import MONGO, single_mongo
from tests.faults.set_ups.redis_faults import REDIS, SingleRedis, single_redis
from tests.faults.set_ups.replica_set_faults import REPLICA_SET, replicas
from tests.faults.set_ups.sentinel_faults import SENTINEL, watched
from tests.faults.suite import Fault, SetUp, Suite
from tests.support.redis_orders import order

FROZEN_S = 5.0
"""Longer than a check may wait, and than the time-out of a store call."""
KILLING_S = 5.0
OUTAGE_S = SHORT_PATIENCE_S + 8.0
"""So long that every process has given up."""


def _of(suite: Suite, *names: str) -> tuple[Trial, ...]:
    """Return the faults of *suite* with these names."""
    faults = {fault.name: fault for fault in suite.faults}
    return tuple(Trial(faults[name]) for name in names)


async def _subscribers_killed(redis: SingleRedis) -> None:
    """Close every subscription as soon as it is made."""
    killed, end_s = 0, asyncio.get_running_loop().time() + KILLING_S
    while asyncio.get_running_loop().time() < end_s:
        killed += await order(redis.server, "CLIENT KILL TYPE pubsub")
        await asyncio.sleep(0.02)
    assert killed > 2, "nobody was subscribed"


async def _announcer_killed(redis: RedisCluster) -> None:
    """Kill the node on which every process is subscribed."""
    await redis.cluster.until_healthy()
    primaries = await redis.cluster.primaries()
    [primary] = [node for node in primaries if await node.order("PUBSUB CHANNELS")]
    replica = await redis.cluster.replica_of(primary)
    redis.failed = primary
    primary.server.kill()
    await redis.cluster.until_promoted(replica, apart_from=primary)


async def _one_frozen(set_up: SetUp) -> None:
    await freeze(set_up.sites[0].running.children()[:1], FROZEN_S)


async def _both_frozen(set_up: SetUp) -> None:
    await freeze(set_up.sites[0].running.children(), FROZEN_S)


async def _frozen_in_an_outage(redis: SingleRedis) -> None:
    """Freeze both processes while the store is down, for longer than their patience."""
    [network] = redis.networks
    network.stall()
    await asyncio.sleep(SHORT_PATIENCE_S / 2)
    freezing = asyncio.ensure_future(freeze(redis.sites[0].running.children(), SHORT_PATIENCE_S + 1.0))
    await asyncio.sleep(SHORT_PATIENCE_S)
    network.resume()
    await freezing


async def _down(set_up: Any) -> None:
    for network in set_up.networks:
        network.stall()
    await asyncio.sleep(OUTAGE_S)
    for network in set_up.networks:
        network.resume()


async def _past_the_end(clocked: Clocked) -> None:
    """Go on after a suspension of the machine: the timers of the loop did not run meanwhile."""
    clocked.clock.set(IDLE_S + MINUTE_S)
    await asyncio.sleep(4.0)


async def _back(clocked: Clocked) -> None:
    clocked.clock.set(0.0)


OUTAGE = Trial(Fault(f"the store is down for {OUTAGE_S:.0f} s", _down), closes=End.STORE_DOWN)
FROZEN = (
    Trial(Fault(f"one of two processes is frozen for {FROZEN_S:.0f} s", _one_frozen)),
    Trial(Fault(f"both processes are frozen for {FROZEN_S:.0f} s", _both_frozen)),
)
BLACK_HOLE = "the network is a black hole for 4 s"

SET_UPS = (
    Trials(
        "Redis",
        partial(single_redis, program=program()),
        (
            Trial(
                Fault(f"subscribers are killed again and again for {KILLING_S:.0f} s", _subscribers_killed),
                in_smoke=True,
            ),
            *_of(
                REDIS,
                "the server is killed and started again",
                "the server is frozen for 4 s",
                BLACK_HOLE,
                "connections are reset, five times",
                "replies are lost for 4 s",
            ),
            *FROZEN,
        ),
    ),
    Trials(
        "Redis Cluster",
        partial(redis_cluster, program=program()),
        (
            Trial(
                Fault(
                    "the primary that announces is killed",
                    _announcer_killed,
                    CLUSTER.faults[0].excused,
                    aftermath=CLUSTER.faults[0].aftermath,
                )
            ),
            *_of(
                CLUSTER,
                "a primary is frozen until it is replaced",
                "each replica becomes the primary on request",
                BLACK_HOLE,
            ),
        ),
    ),
    Trials(
        "Redis Sentinel",
        partial(watched, program=program()),
        _of(
            SENTINEL,
            "the primary is killed",
            "the primary is frozen until it is replaced",
            "a Sentinel is told to replace the primary",
        ),
    ),
    Trials(
        "MongoDB",
        partial(single_mongo, program=program()),
        (*_of(MONGO, "the server is killed and started again", "the server is frozen for 4 s"), *FROZEN),
    ),
    Trials(
        "MongoDB, replica set",
        partial(replicas, program=program()),
        (
            *_of(
                REPLICA_SET,
                "the primary steps down",
                "the primary is killed, and comes back",
                "the primary is frozen until another is elected",
                BLACK_HOLE,
            ),
            *FROZEN,
        ),
    ),
    Trials(
        f"Redis, patience of {SHORT_PATIENCE_S:.0f} s",
        partial(single_redis, program=program(SHORT_PATIENCE_S)),
        (
            *_of(REDIS, BLACK_HOLE),
            Trial(Fault("frozen in an outage, longer than the patience", _frozen_in_an_outage)),
            OUTAGE,
        ),
    ),
    Trials(
        f"MongoDB, patience of {SHORT_PATIENCE_S:.0f} s",
        partial(single_mongo, program=program(SHORT_PATIENCE_S)),
        (*_of(MONGO, BLACK_HOLE), OUTAGE),
    ),
    Trials(
        "clocks, on Redis",
        partial(clocked, prelude=prelude()),
        (
            *_of(CLOCKS, "the clock goes 10 minutes forward and back", "one of two processes is 20 s ahead"),
            Trial(
                Fault("the clock goes past the end of all sessions", _past_the_end, aftermath=_back),
                closes=End.EXPIRED,
            ),
        ),
    ),
)
