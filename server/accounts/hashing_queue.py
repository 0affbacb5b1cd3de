"""`HashingQueue`: password hashing in a few threads, and who waits for them in which order."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from stormcellar.errors import Busy

T = TypeVar("T")

KNOWN_IN_A_ROW = 7
"""So many for known origins are followed by one for others, if both wait."""
LONGEST_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks for a hash; by default a user who is signed in and sets a new password."""

    is_known: bool = True
    """Whether somebody has signed in to this account from this address lately."""
    network: str = ""
    """The network of the client."""


ORIGIN: ContextVar[Origin] = ContextVar("ORIGIN", default=Origin())  # noqa: B039  frozen
"""Set while a password is checked: `AccountDirectory.verify`, an interface, has no argument for it."""


class _Waiter(NamedTuple):
    granted: asyncio.Future[None]
    network: str


class HashingQueue:
    """Runs work in threads of low priority.

    Work for known origins runs first, all but every eighth time, and each of the two kinds has a queue of
    its own. So a flood of attempts from new addresses delays no user at an address from which they signed in
    before. If a queue is full, a new call takes the place of the latest one of the network with the most, if
    that has two more.

    Args:
        workers: How many run at once.
        places: How many can wait in each queue.
        longest_wait_s: How long each can wait.
    """

    def __init__(self, workers: int, places: int, *, longest_wait_s: float = LONGEST_WAIT_S) -> None:
        self._executor = ThreadPoolExecutor(workers, "password", initializer=_lower_priority)
        self._free = workers
        self._places = places
        self._longest_wait_s = longest_wait_s
        self._known_in_a_row = 0
        self._known: deque[_Waiter] = deque()
        self._others: deque[_Waiter] = deque()

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Return what *work* returns.

        Raises:
            Busy: The queue is full, or the wait was too long; nothing was run.
        """
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await self._take_worker(ORIGIN.get())
        except TimeoutError:
            raise Busy("the wait for a password check was too long") from None
        try:
            future = asyncio.get_running_loop().run_in_executor(self._executor, lambda: work(*args))
        except RuntimeError:  # it was closed
            self._give_back_worker()
            raise
        # The worker is busy until the thread is done, even if the caller was cancelled.
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def close(self) -> None:
        """Accept no more work; what is running finishes, and those who wait are cancelled."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        for waiter in (*self._known, *self._others):
            waiter.granted.cancel()

    async def _take_worker(self, origin: Origin) -> None:
        if self._free:
            self._free -= 1
            return
        waiting = self._known if origin.is_known else self._others
        if len(waiting) >= self._places:
            _make_place(waiting, origin.network)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), origin.network)
        waiting.append(waiter)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter in waiting:
                waiting.remove(waiter)
            elif not waiter.granted.cancelled() and waiter.granted.exception() is None:
                self._give_back_worker()
            raise

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._give_back_worker()
        if not future.cancelled():
            future.exception()  # or asyncio logs it as never retrieved if the caller was cancelled

    def _give_back_worker(self) -> None:
        while waiter := self._next():
            if not waiter.granted.done():
                waiter.granted.set_result(None)
                return
        self._free += 1

    def _next(self) -> _Waiter | None:
        """Remove and return the waiter whose turn it is."""
        is_turn_of_others = self._known_in_a_row >= KNOWN_IN_A_ROW or not self._known
        if is_turn_of_others and self._others:
            self._known_in_a_row = 0
            return self._others.popleft()
        self._known_in_a_row += 1
        return self._known.popleft() if self._known else None


def _make_place(waiting: deque[_Waiter], network: str) -> None:
    """Refuse the latest waiter of the network that has most, or raise Busy if *network* has as many."""
    counts = Counter(waiter.network for waiter in waiting)
    fullest, most = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if most < counts[network] + 2:
        raise Busy("too many sign-ins at once")
    latest = next(waiter for waiter in reversed(waiting) if waiter.network == fullest)
    waiting.remove(latest)
    if not latest.granted.done():
        latest.granted.set_exception(Busy("too many sign-ins at once"))


def _lower_priority() -> None:
    """Let the event loop run first where this thread competes with it for a core."""
    # On Linux per thread, elsewhere for the whole process (nice(2), "C library/kernel differences").
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it
            os.nice(10)
