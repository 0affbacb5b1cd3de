"""`LimitedBatches`: batches of which only a few run at a time, so that later requests are sent together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from stormcellar.stores.batching import A, Batches, Q


class LimitedBatches(Batches[Q, A]):
    """Sends a batch as soon as fewer than *max_running* are running; until then the batch grows.

    Batches that hang delay a request by *max_wait_s* at most. A batch is cancelled when all of its callers
    are.

    Args:
        send, max_size: As for `Batches`.
        max_running: How many batches run at a time, as long as all of them end in time.
        max_wait_s: How long a request waits for a running batch to end.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        *,
        max_size: int,
        max_running: int,
        max_wait_s: float,
    ) -> None:
        super().__init__(send, max_size=max_size)
        self._max_running = max_running
        self._max_wait_s = max_wait_s
        self._sent: set[asyncio.Task[None]] = set()
        # When each pending request was submitted, on the loop's clock.
        self._submitted: deque[float] = deque()

    def submit(self, request: Q) -> asyncio.Future[A]:
        """Return the future result of *request*."""
        future = super().submit(request)
        self._submitted.append(asyncio.get_running_loop().time())
        return future

    def _cancel_pending(self) -> None:
        super()._cancel_pending()
        self._submitted.clear()

    async def _send_pending(self) -> None:
        if len(self._sent) >= self._max_running:
            waited_s = asyncio.get_running_loop().time() - self._submitted[0]
            ended, _ = await asyncio.wait(
                self._sent,
                timeout=max(0.0, self._max_wait_s - waited_s),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not ended:
                # Stop counting the batches that hang, so that the next requests do not wait for them again.
                self._sent.clear()
        task = asyncio.current_task()
        assert task is not None
        futures = [future for _, future in self._pending[: self._max_size]]
        for _ in futures:
            self._submitted.popleft()
        self._cancel_with_callers(task, futures)
        self._sent.add(task)
        try:
            await super()._send_pending()
        finally:
            self._sent.discard(task)
            # The traceback of its cancellation would keep the task alive in a cycle, and a socket with it.
            del task

    @staticmethod
    def _cancel_with_callers(task: asyncio.Task[None], futures: Sequence[asyncio.Future[A]]) -> None:
        def on_done(future: asyncio.Future[A]) -> None:
            # Other batches need its connection, and its reply may never come.
            if future.cancelled() and all(other.cancelled() for other in futures):
                task.cancel()

        for future in futures:
            future.add_done_callback(on_done)
