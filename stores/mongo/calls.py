"""`Calls`: the calls of the driver, which nothing here cancels, and their errors as the store's.

PyMongo on Python 3.11 loses the lock of its topology or of a connection pool if it is cancelled while it
cleans up after a time-out of its own: `asyncio.wait_for(condition.wait())` in `pymongo.lock` returns without
the lock, which its inner task then takes for good. After that, each call hangs until the process restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

import pymongo
from bson.errors import BSONError
from pymongo.errors import AutoReconnect, PyMongoError

from stormcellar.stores.mongo.errors import store_error

T = TypeVar("T")

DRIVER_SHARE = 0.9

DRIVER_ERRORS = (PyMongoError, BSONError, OSError, RuntimeError)
"""What a call can raise: errors of the driver, of its locks, and of the system, time-outs included."""


class Calls:
    """Makes calls of the driver, each as a task that nothing here cancels: a caller stops waiting for it.

    A call with a limit ends by the driver's own time-out, which is shorter than the caller's. While the
    driver waits for a server that it can use, it compares the time every 0.5 s only, so a call may go on for
    so long after its caller has given up.

    Args:
        timeout_s: How long a caller waits.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, call: Callable[[], Awaitable[T]], *, timeout_s: float | None = None) -> asyncio.Task[T]:
        """Begin *call*. Its error need not be retrieved."""
        return self._keep(asyncio.create_task(within(DRIVER_SHARE * (timeout_s or self.timeout_s), call)))

    def start_unlimited(self, call: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Begin *call* without any time limit, not even that of its caller; otherwise as `start`."""
        # PyMongo has the limit in a context variable, which a task inherits.
        return self._keep(asyncio.create_task(call(), context=Context()))

    async def run(
        self, operation: str, call: Callable[[], Awaitable[T]], *, timeout_s: float | None = None
    ) -> T:
        """Return the result of *call*, or raise its error as the store's.

        Raises:
            StoreUnavailable: Among others, if there is no result in time; the call may still take effect.
        """
        task = self.start(call, timeout_s=timeout_s)
        try:
            await asyncio.wait([task], timeout=timeout_s or self.timeout_s)
            if not task.done():
                raise TimeoutError
            return task.result()
        except DRIVER_ERRORS as exc:
            raise store_error(operation, exc) from exc

    async def drain(self) -> None:
        """Wait until no call is running."""
        while self._running:
            await asyncio.wait(self._running)

    def _keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Return *task*, kept until its end: the loop has only a weak reference."""
        self._running.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Nobody may be waiting any more, and asyncio logs an exception that is never retrieved.
            task.exception()


async def within(limit_s: float, call: Callable[[], Awaitable[T]]) -> T:
    """Await *call* with a time limit of the driver, which covers its retries and is sent to the server."""
    with pymongo.timeout(limit_s):
        return await call()


async def retry_read(attempt: Callable[[], Awaitable[T]]) -> T:
    """Await *attempt*, and once more if the connection was lost."""
    try:
        return await attempt()
    except AutoReconnect as exc:
        if exc.timeout:
            raise
    return await attempt()


def result_or_raise(operation: str, answer: T | BaseException) -> T:
    """Return *answer*, or raise it if it is an exception, a driver's one as the store's."""
    if isinstance(answer, DRIVER_ERRORS):
        raise store_error(operation, answer) from answer
    if isinstance(answer, BaseException):
        raise answer
    return answer
