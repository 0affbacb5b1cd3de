"""`LimitedBatches`: batches of which only a few run at a time, so that later requests are sent together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from stormcellar.stores.batching import A, Batches, Q
from stormcellar.stores.mongo.calls import DRIVER_SHARE, within

# The share of its time-out, 10 ms of 2 s, that a request waits for running batches to end.
WAIT_SHARE = 0.005


class LimitedBatches(Batches[Q, A | BaseException]):
    """Sends a batch as soon as fewer than *max_running* are running; until then the batch grows.

    Nothing here cancels a batch: see `stormcellar.stores.mongo.calls`. Its callers stop waiting for it.

    Args:
        send, max_size: As for `Batches`. The time limit of the driver holds within *send*.
        max_running: How many batches run at a time, as long as all of them end in time.
        timeout_s: How long a request waits. Its result is then a TimeoutError. Batches that hang delay it by
            `WAIT_SHARE` of that at most.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[A | BaseException]]],
        *,
        max_size: int,
        max_running: int,
        timeout_s: float,
    ) -> None:
        self._max_wait_s = WAIT_SHARE * timeout_s
        self._time_left_s = timeout_s - self._max_wait_s

        async def send_in_time(requests: Sequence[Q]) -> Sequence[A | BaseException]:
            return await within(DRIVER_SHARE * self._time_left_s, lambda: send(requests))

        super().__init__(send_in_time, max_size=max_size)
        self._max_running = max_running
        self._sent: set[asyncio.Task[None]] = set()
        # When each pending request was submitted, on the loop's clock.
        self._submitted: deque[float] = deque()

    def submit(self, request: Q) -> asyncio.Future[A | BaseException]:
        """Return the future result of *request*."""
        future = super().submit(request)
        self._submitted.append(asyncio.get_running_loop().time())
        return future

    def _cancel_pending(self) -> None:
        super()._cancel_pending()
        self._submitted.clear()

    async def _send_pending(self) -> None:
        loop = asyncio.get_running_loop()
        if len(self._sent) >= self._max_running:
            waited_s = loop.time() - self._submitted[0]
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
        self._sent.add(task)
        timer = loop.call_later(self._time_left_s, _give_up, futures)
        try:
            await super()._send_pending()
        finally:
            timer.cancel()
            self._sent.discard(task)
            # The traceback of its cancellation would keep the task alive in a cycle, and a socket with it.
            del task


def _give_up(futures: Sequence[asyncio.Future[A | BaseException]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(TimeoutError())
