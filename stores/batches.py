"""`Batches`: what is asked of a backend in one turn of the event loop, sent together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batches(Generic[Q, A]):
    """Gathers the questions of one turn of the loop, and has them sent together.

    Each asker is given the answer to its own question. A cancelled one leaves, and nobody else notices: its
    question may be sent all the same. What is asked after an answer arrived is sent after it, too.

    Args:
        send: Given the questions of a batch, in their order, returns as many answers. A fault is an answer
            like any other, for the asker to raise as its own, so *send* raises nothing.
        most: How many questions a batch holds; with more of them in one turn there are several batches.
    """

    def __init__(self, send: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, most: int) -> None:
        self._send = send
        self._most = most
        self._asked: list[tuple[Q, asyncio.Future[A]]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    def ask(self, question: Q) -> asyncio.Future[A]:
        """Return the future answer to *question*, which leaves at the end of this turn."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._leave)
        future = loop.create_future()
        self._asked.append((question, future))
        return future

    def _leave(self) -> None:
        asked, self._asked = self._asked, []
        for start in range(0, len(asked), self._most):
            batch = [pair for pair in asked[start : start + self._most] if not pair[1].done()]
            if batch:
                # The loop itself holds tasks by weak references only.
                task = asyncio.ensure_future(self._carry(batch))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    async def _carry(self, batch: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        answers = await self._send([question for question, _ in batch])
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
