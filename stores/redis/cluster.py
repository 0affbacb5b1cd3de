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

from stormcellar.stores.redis.connections import DRIVER_ERRORS, Command, Lines, exchange

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
        answers: dict[int, Any] = {}
        try:
            async with asyncio.timeout_at(until):
                await self._know_nodes()
                await self._send_shares(commands, answers)
        except DRIVER_ERRORS as exc:
            for number in range(len(commands)):
                answers.setdefault(number, exc)
        if any(isinstance(answer, DOUBTS) for answer in answers.values()):
            self._is_in_doubt = True
        return [answers[number] for number in range(len(commands))]

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

    async def _send_shares(self, commands: Sequence[Command], answers: dict[int, Any]) -> None:
        """Add to *answers* what each node says of its share, by the positions in *commands*."""
        shares: dict[ClusterNode, list[int]] = {}
        for number, (_, key, _) in enumerate(commands):
            node = self._client.get_node_from_key(key)
            assert node is not None  # only a replica may be wanting
            shares.setdefault(node, []).append(number)
        sending = [self._send_share(*share, commands, answers) for share in shares.items()]
        # gather() would make a task of a single one, too.
        await (asyncio.gather(*sending) if len(sending) > 1 else sending[0])
        for number, answer in answers.items():
            if isinstance(answer, ELSEWHERE):
                answers[number] = await self._redirected(commands[number], answer)

    async def _send_share(
        self, node: ClusterNode, numbers: list[int], commands: Sequence[Command], answers: dict[int, Any]
    ) -> None:
        replies: list[Any] = []
        try:
            async with self.turns:
                await exchange(node, [commands[number] for number in numbers], replies)
        except DRIVER_ERRORS as exc:
            replies += [exc] * (len(numbers) - len(replies))
        finally:
            # Those that were read by the time this is cancelled.
            answers.update(zip(numbers, replies, strict=False))

    async def _redirected(self, command: Command, refusal: Exception) -> Any:
        """Return what another node says of *command* than the one whose *refusal* it was."""
        _, _, words = command
        try:
            async with self.turns:
                if isinstance(refusal, MovedError):
                    await self._client.nodes_manager.move_slot(refusal)
                return await self._client.execute_command(*words)
        except DRIVER_ERRORS as exc:
            return exc
