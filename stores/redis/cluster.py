"""The connections to a cluster: each node receives its share of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis import asyncio as aioredis
from redis.asyncio.cluster import ClusterNode
from redis.cluster import PRIMARY
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)

from stormcellar.stores.redis.connections import DRIVER_ERRORS, Command, Connections, Wait, exchange

# Replies of a node that did not execute the command, because its key moved or is moving to another node.
REDIRECTIONS = (MovedError, AskError, TryAgainError)

# After one of these the known nodes may be out of date.
NODE_ERRORS = (ConnectionError, TimeoutError, OSError, ClusterDownError, SlotNotCoveredError)

HOPS, HOP_PAUSE_S = 16, 0.02
"""How often a command is sent, and the pause between, where nodes name each other while a slot moves."""


class Target(NamedTuple):
    """Where commands go: to the owner of their slot, or, with ASKING, to a node that is to own it soon."""

    node: ClusterNode
    is_asking: bool = False


class ClusterConnections(Connections):
    """The connections to the nodes of a cluster. A node that fails affects only its own share of a batch."""

    def __init__(self, client: aioredis.RedisCluster) -> None:
        super().__init__()
        self._client = client
        self._is_outdated = False

    async def send(self, commands: Sequence[Command], *, until: float, wait: Wait | None = None) -> list[Any]:
        """Send each of *commands* to its node; see `Connections.send`.

        A command is sent again only if a node refused it because its key belongs to another: to that one.
        """
        answers: dict[int, Any] = {}
        try:
            async with asyncio.timeout_at(until):
                await self._refresh_nodes()
                await self._send_shares(commands, answers, wait)
        except DRIVER_ERRORS as exc:
            for number in range(len(commands)):
                answers.setdefault(number, exc)
        if any(isinstance(answer, NODE_ERRORS) for answer in answers.values()):
            self._is_outdated = True
        return [answers[number] for number in range(len(commands))]

    async def pubsub(self) -> Any:
        """Return a new subscriber; redis-py connects it to the owner of the channel's slot.

        The owner may be another one than before: a process that only listens sends no command that would
        tell. PUBLISH reaches every node.
        """
        self._is_outdated = True
        await self._refresh_nodes()
        return self._client.pubsub()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        # After an error the client counts as not initialised, and its own aclose() leaves the nodes open.
        await self._client.nodes_manager.aclose()
        await self._client.nodes_manager.aclose("startup_nodes")

    async def _refresh_nodes(self) -> None:
        await self._client.initialize()
        if self._is_outdated:
            # redis-py refreshes the owners of slots only after a failure of its own execute_command().
            await self._client.nodes_manager.initialize()
            self._is_outdated = False

    async def _send_shares(
        self, commands: Sequence[Command], answers: dict[int, Any], wait: Wait | None
    ) -> None:
        """Send each node its share, and add the replies to *answers* by their position in *commands*.

        Then send each command that a node refused to the node that it named, as often as nodes refuse it.
        """
        shares: dict[Target, list[int]] = {}
        for number, (_, key) in enumerate(commands):
            try:
                node = self._client.get_node_from_key(key)
            except SlotNotCoveredError as exc:
                answers[number] = exc
                continue
            assert node is not None  # it may be None only when a replica is asked for
            shares.setdefault(Target(node), []).append(number)
        for hop in range(HOPS):
            if not shares:
                break
            if hop > 1:  # the nodes do not agree yet
                await asyncio.sleep(HOP_PAUSE_S)
            sending = [self._send_share(*share, commands, answers, wait) for share in shares.items()]
            # gather() would make a task even for a single share.
            await (asyncio.gather(*sending) if len(sending) > 1 else sending[0])
            shares = await self._redirected(shares, answers)

    async def _send_share(
        self,
        target: Target,
        numbers: list[int],
        commands: Sequence[Command],
        answers: dict[int, Any],
        wait: Wait | None,
    ) -> None:
        replies: list[Any] = []
        try:
            async with self.slots:
                sent = [commands[number] for number in numbers]
                await exchange(target.node, sent, replies, is_asking=target.is_asking, wait=wait)
        except DRIVER_ERRORS as exc:
            replies += [exc] * (len(numbers) - len(replies))
        finally:
            # On a cancellation: the replies read so far.
            answers.update(zip(numbers, replies, strict=False))

    async def _redirected(
        self, shares: dict[Target, list[int]], answers: dict[int, Any]
    ) -> dict[Target, list[int]]:
        """Return the commands in *shares* whose answer is a redirection, by the target that it names."""
        found: dict[Target, list[int]] = {}
        for asked, numbers in shares.items():
            for number in numbers:
                if isinstance(refusal := answers[number], REDIRECTIONS):
                    found.setdefault(await self._target(refusal, asked), []).append(number)
        return found

    async def _target(self, refusal: Exception, asked: Target) -> Target:
        if not isinstance(refusal, AskError):
            return asked  # TRYAGAIN
        # A node that is not to tell its host names none: it is the same.
        refusal.host = refusal.host or asked.node.host
        node = self._node(refusal.host, refusal.port)
        is_moved = isinstance(refusal, MovedError)
        if is_moved:
            with suppress(KeyError):  # refreshed meanwhile, and nobody owns the slot
                await self._client.nodes_manager.move_slot(refusal)
        return Target(node, is_asking=not is_moved)

    def _node(self, host: str, port: int) -> ClusterNode:
        """Return the node at that address. redis-py does not know one that owns no slot yet.

        As a known one, it is closed with the others, or when redis-py next asks for the owners of slots.
        """
        manager = self._client.nodes_manager
        node: ClusterNode | None = manager.get_node(host, port)
        if node is None:
            node = ClusterNode(host, port, PRIMARY, **manager.connection_kwargs)
            manager.set_nodes(manager.nodes_cache, {node.name: node})
        return node
