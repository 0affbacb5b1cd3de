"""A Redis cluster of three primaries and three replicas, each behind a network of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

from stormcellar.stores.conformance.faults import Network
from tests.support.backends import Server, free_port
from tests.support.redis_orders import info, order, until

PRIMARIES = 3
NODE_TIMEOUT_MS = 1500
"""After this time without an answer the nodes count another one as failed, and elect its replica."""
SLOTS = 16384


class Node:
    """One node. The others, and everybody else, reach it through its two networks.

    Args:
        address: The loopback address that its own connections come from.
        network: For clients and replicas.
        bus: For the messages of other nodes.
    """

    def __init__(self, server: Server, address: str, network: Network, bus: Network) -> None:
        self.server = server
        self.address = address
        self.network = network
        self.bus = bus
        self.id = ""

    @classmethod
    async def start(cls, stack: AsyncExitStack, number: int, options: Sequence[str]) -> Self:
        """Start one that belongs to no cluster and has no slot; *stack* stops it."""
        port, bus_port, address = free_port(), free_port(), f"127.0.0.{number + 2}"
        network = await stack.enter_async_context(Network(port))
        bus = await stack.enter_async_context(Network(bus_port))
        announced = (
            "--cluster-announce-port",
            str(network.port),
            "--cluster-announce-bus-port",
            str(bus.port),
        )
        times = ("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--repl-diskless-sync-delay", "0")
        own = ("--cluster-port", str(bus_port), "--bind-source-addr", address)
        server = Server("redis_cluster", port=port, extra=(*own, *announced, *times, *options))
        stack.callback(server.close)
        await asyncio.to_thread(server.start)
        node = cls(server, address, network, bus)
        await node.order("CLUSTER FLUSHSLOTS")
        await node.order("CLUSTER RESET", "HARD")
        await node.order("CLUSTER SET-CONFIG-EPOCH", number + 1)
        node.id = str(await node.order("CLUSTER MYID"))
        return node

    async def order(self, *command: str | int) -> Any:
        """Send one command to the node itself, not through its network; return the reply."""
        return await order(self.server, *command)

    async def is_primary(self) -> bool:
        """Whether it says so itself."""
        return bool((await info(self.server, "replication"))["role"] == "master")

    async def is_healthy(self) -> bool:
        """Whether it sees every slot served, and has the data of its primary if it is a replica."""
        state = await self.order("CLUSTER INFO")
        link = (await info(self.server, "replication")).get("master_link_status", "up")
        return bool(state["cluster_state"] == "ok" and link == "up")


class Cluster:
    """The nodes, and what happens to them.

    Args:
        nodes: Primaries first, then one replica of each in the same order.
        spare: A node that belongs to no cluster yet.
    """

    def __init__(self, nodes: list[Node], spare: Node) -> None:
        self.nodes = nodes
        self.spare = spare

    async def form(self) -> None:
        """Make one cluster of the nodes."""
        first, *others = self.nodes
        for node in others:
            await first.order("CLUSTER MEET", "127.0.0.1", node.network.port, node.bus.port)
        for number, node in enumerate(self.nodes[:PRIMARIES]):
            start, end = (SLOTS * each // PRIMARIES for each in (number, number + 1))
            await node.order("CLUSTER ADDSLOTSRANGE", start, end - 1)
        await until(self._is_known)
        for primary, replica in zip(self.nodes[:PRIMARIES], self.nodes[PRIMARIES:], strict=True):
            await replica.order("CLUSTER REPLICATE", primary.id)
        await self.until_healthy()

    async def grow(self) -> None:
        """Have the spare node join, as a primary without slots."""
        port, bus_port = self.spare.network.port, self.spare.bus.port
        await self.nodes[0].order("CLUSTER MEET", "127.0.0.1", port, bus_port)
        self.nodes.append(self.spare)
        await until(self._is_known)
        await self.until_healthy()

    async def _is_known(self) -> bool:
        known = [(await node.order("CLUSTER INFO"))["cluster_known_nodes"] for node in self.nodes]
        return known == [str(len(self.nodes))] * len(self.nodes)

    async def until_healthy(self) -> None:
        """Wait until every node serves, and every replica has its primary's data."""
        for node in self.nodes:
            await until(node.is_healthy)

    async def primaries(self) -> list[Node]:
        """Return the nodes that say that they are primaries; all must run."""
        return [node for node in self.nodes if await node.is_primary()]

    async def replica_of(self, primary: Node) -> Node:
        """Return the replica of *primary*."""
        [found] = [node for node in self.nodes if await self._follows(node, primary)]
        return found

    async def _follows(self, node: Node, primary: Node) -> bool:
        return bool((await info(node.server, "replication")).get("master_port") == primary.network.port)

    async def until_promoted(self, replica: Node, *, apart_from: Node) -> None:
        """Wait until *replica* is a primary and all nodes but one serve."""
        await until(replica.is_primary)
        for node in self.nodes:
            if node is not apart_from:
                await until(node.is_healthy)

    def cut_off(self, node: Node) -> None:
        """Let no byte pass between *node* and all others; clients reach it."""
        node.bus.stall()
        for other in self._others(node):
            node.network.stall(other.address)
            other.network.stall(node.address)
            other.bus.stall(node.address)

    def reconnect(self, node: Node) -> None:
        """Undo `cut_off`."""
        node.bus.resume()
        for other in self._others(node):
            node.network.resume(other.address)
            other.network.resume(node.address)
            other.bus.resume(node.address)

    def _others(self, node: Node) -> list[Node]:
        return [other for other in self.nodes if other is not node]


@asynccontextmanager
async def cluster_of_six(options: Sequence[str]) -> AsyncIterator[Cluster]:
    """Start three primaries and a replica of each; stop them at the end."""
    async with AsyncExitStack() as stack:
        numbers = range(2 * PRIMARIES + 1)
        *nodes, spare = await asyncio.gather(*(Node.start(stack, number, options) for number in numbers))
        cluster = Cluster(nodes, spare)
        await cluster.form()
        yield cluster
