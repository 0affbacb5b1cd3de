"""`Batches`: requests made in one iteration of the event loop, sent to the backend together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batches(Generic[Q, A]):
    """Collects the requests of one iteration of the event loop and sends them together.

    Each caller gets the result of its own request. A caller that is cancelled affects no other; its request
    may be sent all the same. A request made after a result arrived is sent after it, too.

    Args:
        send: Takes the requests of a batch and returns as many results, in the same order. A result may be an
            exception, which its caller raises; an exception that *send* raises is raised by all callers.
        max_size: How many requests a batch holds. More of them in one iteration make several batches.
    """

    def __init__(self, send: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, max_size: int) -> None:
        self._send = send
        self._max_size = max_size
        self._pending: list[tuple[Q, asyncio.Future[A]]] = []
        # The task that will send the pending requests, until it takes them.
        self._next: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    def submit(self, request: Q) -> asyncio.Future[A]:
        """Return the future result of *request*, which is sent at the end of this iteration."""
        loop = asyncio.get_running_loop()
        if self._next is None or self._next.done() or self._next.get_loop() is not loop:
            self._cancel_pending()
            self._schedule(loop)
        future: asyncio.Future[A] = loop.create_future()
        self._pending.append((request, future))
        return future

    async def drain(self) -> None:
        """Wait until no batch is running."""
        while self._running:
            await asyncio.wait(self._running)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # A task takes its first step after this iteration. We keep it: the loop has only a weak reference.
        # Its context is empty: a caller's settings, such as a driver's time-out, must not affect others.
        self._next = task = loop.create_task(self._send_pending(), context=Context())
        self._running.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task is self._next:  # cancelled before it took the pending requests
            self._cancel_pending()

    def _cancel_pending(self) -> None:
        """Cancel requests whose task will not run, as when a loop ends and cancels all of its tasks."""
        pending, self._pending, self._next = self._pending, [], None
        for _, future in pending:
            if not future.done():
                future.cancel()

    async def _send_pending(self) -> None:
        taken, self._pending = self._pending[: self._max_size], self._pending[self._max_size :]
        self._next = None
        if self._pending:
            self._schedule(asyncio.get_running_loop())
        batch = [pair for pair in taken if not pair[1].done()]
        if not batch:
            return
        try:
            results = await self._send([request for request, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as exc:
            for _, future in batch:
                if not future.done():
                    future.set_exception(exc)
