"""The connections to a cluster: each node receives its share of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis import asyncio as aioredis
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    MovedError,
    TimeoutError,
    TryAgainError,
)

from stormcellar.stores.redis.connections import DRIVER_ERRORS, Command, Connections, exchange

# Replies of a node that did not execute the command, because its key moved or is moving to another node.
REDIRECTIONS = (MovedError, AskError, TryAgainError)

# After one of these the known nodes may be out of date.
NODE_ERRORS = (ConnectionError, TimeoutError, OSError, ClusterDownError)


class ClusterConnections(Connections):
    """The connections to the nodes of a cluster. A node that fails affects only its own share of a batch."""

    def __init__(self, client: aioredis.RedisCluster) -> None:
        super().__init__()
        self._client = client
        self._is_outdated = False

    async def send(self, commands: Sequence[Command], *, until: float) -> list[Any]:
        """Send each of *commands* to its node; see `Connections.send`.

        A command is sent again only if a node refused it because its key belongs to another: to that one.
        """
        answers: dict[int, Any] = {}
        try:
            async with asyncio.timeout_at(until):
                await self._refresh_nodes()
                await self._send_shares(commands, answers)
        except DRIVER_ERRORS as exc:
            for number in range(len(commands)):
                answers.setdefault(number, exc)
        if any(isinstance(answer, NODE_ERRORS) for answer in answers.values()):
            self._is_outdated = True
        return [answers[number] for number in range(len(commands))]

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

    async def _send_shares(self, commands: Sequence[Command], answers: dict[int, Any]) -> None:
        """Send each node its share, and add the replies to *answers* by their position in *commands*."""
        shares: dict[ClusterNode, list[int]] = {}
        for number, (_, key, _) in enumerate(commands):
            node = self._client.get_node_from_key(key)
            assert node is not None  # it may be None only when a replica is asked for
            shares.setdefault(node, []).append(number)
        sending = [self._send_share(*share, commands, answers) for share in shares.items()]
        # gather() would make a task even for a single share.
        await (asyncio.gather(*sending) if len(sending) > 1 else sending[0])
        for number, answer in answers.items():
            if isinstance(answer, REDIRECTIONS):
                answers[number] = await self._redirected(commands[number], answer)

    async def _send_share(
        self, node: ClusterNode, numbers: list[int], commands: Sequence[Command], answers: dict[int, Any]
    ) -> None:
        replies: list[Any] = []
        try:
            async with self.slots:
                await exchange(node, [commands[number] for number in numbers], replies)
        except DRIVER_ERRORS as exc:
            replies += [exc] * (len(numbers) - len(replies))
        finally:
            # On a cancellation: the replies read so far.
            answers.update(zip(numbers, replies, strict=False))

    async def _redirected(self, command: Command, refusal: Exception) -> Any:
        """Send *command* to the node that *refusal* names, and return the reply or error."""
        _, _, words = command
        try:
            async with self.slots:
                if isinstance(refusal, MovedError):
                    await self._client.nodes_manager.move_slot(refusal)
                return await self._client.execute_command(*words)
        except DRIVER_ERRORS as exc:
            return exc
