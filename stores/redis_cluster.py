"""The lines to a cluster: each node is sent its share of a batch."""

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

from stores.redis_lines import DRIVER_ERRORS, Command, Lines

# The answers of a node that has not executed the command, because its key is, or is about to be, elsewhere.
ELSEWHERE = (MovedError, AskError, TryAgainError)

# After one of these the nodes may not be what they were.
DOUBTS = (ConnectionError, TimeoutError, OSError, ClusterDownError)


class ClusterLines(Lines):
    """The lines to the nodes of a cluster. A node that fails, fails its own share of a batch alone."""

    def __init__(self, client: aioredis.RedisCluster) -> None:
        super().__init__()
        self._client = client
        self._is_in_doubt = False

    async def send(self, commands: Sequence[Command], *, until: float) -> list[Any]:
        """Send each of *commands* to its node, as `Lines` promises.

        Only what a node has refused, because it belongs to another, is sent again: to that one.
        """
        try:
            async with asyncio.timeout_at(until):
                await self._know_nodes()
            shares = self._shares(commands)
        except DRIVER_ERRORS as exc:
            return [exc] * len(commands)
        answers: list[Any] = [None] * len(commands)

        async def send_share(node: ClusterNode, numbers: list[int]) -> None:
            replies = await self.exchange(node, [commands[number] for number in numbers], until=until)
            for number, reply in zip(numbers, replies, strict=True):
                answers[number] = reply
                if isinstance(reply, ELSEWHERE):
                    answers[number] = await self._redirect(commands[number], reply, until)

        await asyncio.gather(*(send_share(*share) for share in shares.items()))
        if any(isinstance(answer, DOUBTS) for answer in answers):
            self._is_in_doubt = True
        return answers

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        # After an error the client counts as not initialised, and its own aclose() leaves the nodes open.
        await self._client.nodes_manager.aclose()
        await self._client.nodes_manager.aclose("startup_nodes")

    async def _know_nodes(self) -> None:
        await self._client.initialize()
        if self._is_in_doubt:
            # redis-py asks who owns a slot now only if what failed was sent by its own execute_command().
            await self._client.nodes_manager.initialize()
            self._is_in_doubt = False

    def _shares(self, commands: Sequence[Command]) -> dict[ClusterNode, list[int]]:
        """Return the positions in *commands* of what each node is sent."""
        shares: dict[ClusterNode, list[int]] = {}
        for number, (_, key, _) in enumerate(commands):
            node = self._client.get_node_from_key(key)
            assert node is not None  # only a replica may be wanting
            shares.setdefault(node, []).append(number)
        return shares

    async def _redirect(self, command: Command, reply: Exception, until: float) -> Any:
        _, _, words = command
        try:
            async with asyncio.timeout_at(until), self.turns:
                if isinstance(reply, MovedError):
                    await self._client.nodes_manager.move_slot(reply)
                return await self._client.execute_command(*words)
        except DRIVER_ERRORS as exc:
            return exc
