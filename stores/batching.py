"""`Batches`: what is asked of a backend in one turn of the event loop, sent together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batches(Generic[Q, A]):
    """Gathers the questions of one turn of the loop, and has them sent together.

    Each asker is given the answer to its own question. A cancelled one leaves, and nobody else notices: its
    question may be sent all the same. What is asked after an answer arrived is sent after it, too.

    Args:
        send: Given the questions of a batch, in their order, returns as many answers. A fault is an answer
            like any other, for the asker to raise as its own; what *send* itself raises, all of them raise.
        most: How many questions a batch holds; with more of them in one turn there are several batches.
    """

    def __init__(self, send: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, most: int) -> None:
        self._send = send
        self._most = most
        self._asked: list[tuple[Q, asyncio.Future[A]]] = []
        # The task that will take what was asked, until it does.
        self._next: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    def ask(self, question: Q) -> asyncio.Future[A]:
        """Return the future answer to *question*, which leaves at the end of this turn."""
        loop = asyncio.get_running_loop()
        if self._next is None or self._next.done() or self._next.get_loop() is not loop:
            self._abandon()
            self._begin(loop)
        future: asyncio.Future[A] = loop.create_future()
        self._asked.append((question, future))
        return future

    async def settled(self) -> None:
        """Wait until nothing is under way any more."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        # A task takes its first step when this turn is over. The loop itself holds it by a weak reference.
        # What one asker has set for itself, such as a time-out of the driver's, must not hold for the others.
        self._next = task = loop.create_task(self._carry(), context=Context())
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if task is self._next:  # cancelled before it took anything
            self._abandon()

    def _abandon(self) -> None:
        """Leave nobody waiting for a task that is gone, as where a loop ends and cancels all of its tasks."""
        asked, self._asked, self._next = self._asked, [], None
        for _, future in asked:
            if not future.done():
                future.cancel()

    async def _carry(self) -> None:
        asked, self._asked, self._next = self._asked[: self._most], self._asked[self._most :], None
        if self._asked:
            self._begin(asyncio.get_running_loop())
        batch = [pair for pair in asked if not pair[1].done()]
        if not batch:
            return
        try:
            answers = await self._send([question for question, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as exc:
            for _, future in batch:
                if not future.done():
                    future.set_exception(exc)
