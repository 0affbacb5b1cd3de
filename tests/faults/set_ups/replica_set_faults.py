"""Faults of a MongoDB replica set of three members, each behind a network of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from stormcellar.stores.conformance.faults import Network
from tests.faults.set_ups.network_faults import LONG_S, NETWORK_FAULTS
from tests.faults.site import PROGRAM, Site
from tests.faults.suite import Fault, Suite
from tests.support.backends import Server
from tests.support.replica_set import ReplicaSet, command

ELECTION_TIMEOUT_S = 2.0


class Replicas:
    """Members that see each other, and are seen, by way of the networks; and a site of two processes."""

    def __init__(self, replica_set: ReplicaSet, networks: list[Network], site: Site) -> None:
        self.set = replica_set
        self.networks = networks
        self.sites = [site]
        self.base = site.base
        self._returns: list[asyncio.Future[None]] = []

    async def primary(self) -> Server:
        """Return the primary of a set that is whole again after the last fault."""
        await self.wait_until_whole()
        return await self.elected()

    def others(self, primary: Server) -> list[Server]:
        """Return the members other than *primary*."""
        return [member for member in self.set.members if member is not primary]

    async def elected(self, *, but: Server | None = None) -> Server:
        """Wait for a primary other than *but* that answers writes."""
        return await asyncio.to_thread(lambda: self.set.writable(but=but))

    def start(self, member: Server, *, rollbacks: int = 0) -> None:
        """Let a dead member return, while the set serves without it, after as many rollbacks at least."""

        def start() -> None:
            member.start()
            self.set.wait_until_whole()
            assert _rollbacks(member) >= rollbacks, "no write was rolled back"

        self._returns.append(asyncio.ensure_future(asyncio.to_thread(start)))

    async def wait_until_whole(self) -> None:
        """Wait until every member follows a primary that answers writes."""
        returns, self._returns = self._returns, []
        await asyncio.gather(*returns)
        await asyncio.to_thread(self.set.wait_until_whole)

    def network_of(self, member: Server) -> Network:
        """Return the network in front of *member*."""
        return self.networks[self.set.members.index(member)]


@asynccontextmanager
async def replicas(directory: Path, *, program: tuple[str, ...] = PROGRAM) -> AsyncIterator[Replicas]:
    """Start them; stop them at the end."""
    replica_set = ReplicaSet(election_timeout_s=ELECTION_TIMEOUT_S)
    async with AsyncExitStack() as stack:
        networks = [await stack.enter_async_context(Network(port)) for port in replica_set.ports]
        replica_set.ports = [network.port for network in networks]
        stack.push_async_callback(asyncio.to_thread, replica_set.__exit__)
        await asyncio.to_thread(replica_set.__enter__)
        await asyncio.to_thread(replica_set.wait_until_whole)
        site = Site(directory, replica_set.url, "--processes", "2", program=program)
        stack.callback(site.close)
        await asyncio.to_thread(site.start)
        found = Replicas(replica_set, networks, site)
        yield found
        await found.wait_until_whole()


def _rollbacks(member: Server) -> int:
    """Return how often a member undid writes that no other member had."""
    return int(command(member, "replSetGetRBID").get("rbid", 0))


async def _killed(replicas: Replicas) -> None:
    primary = await replicas.primary()
    primary.kill()
    await replicas.elected()
    replicas.start(primary)


async def _frozen(replicas: Replicas) -> None:
    """Freeze the primary until there is another one: it does not know of that when it continues."""
    primary = await replicas.primary()
    await asyncio.to_thread(primary.pause)
    await replicas.elected(but=primary)
    primary.resume()


async def _black_hole(replicas: Replicas) -> None:
    primary = await replicas.primary()
    network = replicas.network_of(primary)
    network.stall()
    await replicas.elected(but=primary)
    network.resume()


async def _stepped_down(replicas: Replicas) -> None:
    primary = await replicas.primary()
    await asyncio.to_thread(command, primary, "replSetStepDown", 10, force=True)
    await replicas.elected(but=primary)


async def _stepped_down_again_and_again(replicas: Replicas) -> None:
    await replicas.primary()
    for _ in range(5):
        primary = await asyncio.to_thread(replicas.set.primary)
        await asyncio.to_thread(command, primary, "replSetStepDown", 1, force=True)
        await asyncio.sleep(1.0)
    await replicas.elected()


async def _rolling_restart(replicas: Replicas) -> None:
    """Restart the secondaries and then the primary, each when the set is whole."""
    primary = await replicas.primary()
    for member in (*replicas.others(primary), primary):
        await asyncio.to_thread(member.stop)
        await replicas.elected()
        replicas.start(member)
        await replicas.primary()


async def _secondary_killed(replicas: Replicas) -> None:
    secondary, _ = replicas.others(await replicas.primary())
    secondary.kill()
    await asyncio.sleep(1.0)
    replicas.start(secondary)


async def _no_majority(replicas: Replicas) -> None:
    secondaries = replicas.others(await replicas.primary())
    for member in secondaries:
        await asyncio.to_thread(member.pause)
    await asyncio.sleep(LONG_S)
    for member in secondaries:
        member.resume()
    await replicas.elected()


async def _all_killed(replicas: Replicas) -> None:
    await replicas.primary()
    for member in replicas.set.members:
        member.kill()
    await asyncio.gather(*(asyncio.to_thread(member.start) for member in replicas.set.members))
    await replicas.elected()


async def _rolled_back(replicas: Replicas) -> None:
    """Let the primary take writes that no other member has, and elect another one without them."""
    primary = await replicas.primary()
    before = await asyncio.to_thread(_rollbacks, primary)
    secondaries = replicas.others(primary)
    for member in secondaries:
        await asyncio.to_thread(member.pause)
    # The members notice it after the election time-out; until then the primary takes writes.
    await asyncio.sleep(ELECTION_TIMEOUT_S / 2)
    primary.kill()
    for member in secondaries:
        member.resume()
    await replicas.elected()
    replicas.start(primary, rollbacks=before + 1)


def _until_elected(fault: Fault) -> Fault:
    """Return a fault of all networks that ends when there is a primary again."""

    async def inflict(replicas: Replicas) -> Any:
        await replicas.primary()
        await fault.inflict(replicas)
        await replicas.elected()

    return replace(fault, inflict=inflict)


REPLICA_SET = Suite(
    "MongoDB, replica set",
    replicas,
    (
        Fault("the primary is killed, and comes back", _killed, in_smoke=True),
        Fault("the primary is frozen until another is elected", _frozen),
        Fault("the primary is behind a black hole until another is elected", _black_hole),
        Fault("the primary steps down", _stepped_down),
        Fault("the primary steps down each second for 5 s", _stepped_down_again_and_again),
        Fault("all members are restarted, one after another", _rolling_restart),
        Fault("a secondary is killed, and comes back", _secondary_killed),
        Fault("two secondaries are frozen for 4 s", _no_majority),
        Fault("all members are killed and started again", _all_killed),
        Fault("a primary without followers takes writes, and is killed", _rolled_back),
        *map(_until_elected, NETWORK_FAULTS),
    ),
)
