"""`Turns`: batches of which only a few are under way, so that what is asked meanwhile gathers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from stormcellar.stores.batching import A, Batches, Q


class Turns(Batches[Q, A]):
    """Sends a batch as soon as fewer than *at_once* are under way; until then it grows.

    Those that hang hold the others up for *patience_s* at most. One that nobody waits for any more is
    cancelled.

    Args:
        send, most: As for `Batches`.
        at_once: How many batches are under way while all of them come back in time.
        patience_s: How long a question waits for its turn at most.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        *,
        most: int,
        at_once: int,
        patience_s: float,
    ) -> None:
        super().__init__(send, most=most)
        self._at_once = at_once
        self._patience_s = patience_s
        self._sent: set[asyncio.Task[None]] = set()
        # When each question that waits was asked, on the loop's clock.
        self._since: deque[float] = deque()

    def ask(self, question: Q) -> asyncio.Future[A]:
        """Return the future answer to *question*."""
        future = super().ask(question)
        self._since.append(asyncio.get_running_loop().time())
        return future

    def _abandon(self) -> None:
        super()._abandon()
        self._since.clear()

    async def _carry(self) -> None:
        if len(self._sent) >= self._at_once:
            waited_s = asyncio.get_running_loop().time() - self._since[0]
            come_back, _ = await asyncio.wait(
                self._sent,
                timeout=max(0.0, self._patience_s - waited_s),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not come_back:
                # Those that hang no longer count, so that the next ones need not wait for the same again.
                self._sent.clear()
        task = asyncio.current_task()
        assert task is not None
        answers = [future for _, future in self._asked[: self._most]]
        for _ in answers:
            self._since.popleft()
        self._cancel_if_left_alone(task, answers)
        self._sent.add(task)
        try:
            await super()._carry()
        finally:
            self._sent.discard(task)
            # The traceback of its cancellation would keep the task alive in a circle, and a socket with it.
            del task

    @staticmethod
    def _cancel_if_left_alone(task: asyncio.Task[None], answers: Sequence[asyncio.Future[A]]) -> None:
        def left(answer: asyncio.Future[A]) -> None:
            # Its connection is wanted by others, and its reply may never come.
            if answer.cancelled() and all(other.cancelled() for other in answers):
                task.cancel()

        for answer in answers:
            answer.add_done_callback(left)
