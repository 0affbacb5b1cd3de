"""`Worker`: one thread with one connection. Calls made at about the same time share a transaction."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from stormcellar.stores.batching import Batches
from stormcellar.stores.errors import StoreUnavailable
from stormcellar.stores.sqlite.errors import DRIVER_ERRORS, code_of, is_full, store_error
from stormcellar.stores.sqlite.file import DatabaseFile, Identity

T = TypeVar("T")
Call = Callable[[sqlite3.Connection], Any]

MAX_SIZE = 64
"""Calls in a transaction: enough that they share the wait for the disk, few enough that none waits long."""

MANY = 1024
"""Waiting calls of which the list is searched for those that nobody waits for any more."""

RETRY_MS = 1
"""How often a writer tries to get the lock. SQLite itself tries at longer and longer intervals, up to 100 ms,
so that of four busy processes one waited for more than 1.6 s."""

LOCK_SHARE = 0.8
"""The share of the time-out that is spent waiting for other programs: their lock is a reason to report."""


class Worker:
    """Runs calls in a thread, each as `call(connection)`, in transactions.

    While a transaction runs, further calls collect for the next one: there they wait for the disk together.
    Each caller gets its own result or its own error.

    Args:
        writes: Whether the calls write: each transaction then has the lock from its beginning, before
            anything is read. Readers wait for nobody.
        timeout_s: How long a caller waits.
    """

    def __init__(self, file: DatabaseFile, *, writes: bool, timeout_s: float) -> None:
        self._file = file
        self._writes = writes
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stormcellar-sqlite")
        self._batches = _OneAtATime(self._send, max_size=MAX_SIZE)
        self._is_closed = False
        # These two are used by the thread alone.
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None

    async def run(self, operation: str, call: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of *call*, or raise its error, one of SQLite as the store's.

        Raises:
            StoreUnavailable: Among others, if there is no result in time; the call may still take effect.
        """
        if self._is_closed:
            raise StoreUnavailable(f"{operation}: the store is closed")
        try:
            async with asyncio.timeout(self._timeout_s):
                answer: T | BaseException = await self._batches.submit(call)
            if isinstance(answer, BaseException):
                raise answer
        except DRIVER_ERRORS as exc:
            raise store_error(operation, exc) from exc
        return answer

    async def aclose(self) -> None:
        """Finish the calls that are running, and close the connection, within one time-out. Idempotent."""
        self._is_closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._batches.drain()
                with suppress(RuntimeError):  # the thread has ended already
                    await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def _send(self, calls: Sequence[Call]) -> Sequence[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answers, calls)

    # From here on: in the thread.

    def _answers(self, calls: Sequence[Call]) -> Sequence[Any]:
        """Run *calls* in one transaction and return their results; an error is a result as well."""
        try:
            db = self._open()
            self._begin(db)
        except StoreUnavailable as exc:
            return [exc] * len(calls)
        except DRIVER_ERRORS as exc:
            self._close()
            return [exc] * len(calls)
        try:
            answers = [_answer(call, db) for call in calls]
            db.execute("COMMIT")
        except sqlite3.Error as exc:
            # Without a connection nothing of the transaction stays.
            self._close()
            if is_full(exc) and len(calls) > 1:
                # One of them needs more space than there is. The others need not fail with it.
                return [answer for call in calls for answer in self._answers([call])]
            return [exc] * len(calls)
        return answers

    def _open(self) -> sqlite3.Connection:
        """Return the connection, a new one if there is none, or if another file has taken the path."""
        if self._connection is not None and self._file.identity() == self._identity:
            return self._connection
        # If this raises, the connection stays open, and so no other file can get the number of the old one.
        self._file.require_own_log()
        self._close()
        self._connection, self._identity = self._file.connect(wait_s=LOCK_SHARE * self._timeout_s)
        if self._writes:
            self._connection.execute(f"PRAGMA busy_timeout = {RETRY_MS}")
        return self._connection

    def _begin(self, db: sqlite3.Connection) -> None:
        if not self._writes:
            db.execute("BEGIN")
            return
        until_s = time.monotonic() + LOCK_SHARE * self._timeout_s
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as exc:
                if code_of(exc) != "SQLITE_BUSY" or time.monotonic() >= until_s:
                    raise

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _answer(call: Call, db: sqlite3.Connection) -> Any:
    """Return the result of *call*, or its error if that says nothing about the transaction."""
    try:
        return call(db)
    except Exception as exc:
        # An error without a code of SQLite is about the arguments of this call alone.
        if getattr(exc, "sqlite_errorcode", None) is not None:
            raise
        return exc


class _OneAtATime(Batches[Call, Any]):
    """Sends a batch when the one before has ended; until then it grows."""

    def __init__(self, send: Callable[[Sequence[Call]], Any], *, max_size: int) -> None:
        super().__init__(send, max_size=max_size)
        self._turn = asyncio.Lock()
        self._many = MANY

    def submit(self, request: Call) -> asyncio.Future[Any]:
        """Return the future result of *request*."""
        if len(self._pending) >= self._many:
            # While the disk hangs, those whose callers have given up must not fill the memory.
            self._pending = [pair for pair in self._pending if not pair[1].done()]
            self._many = max(MANY, 2 * len(self._pending))
        return super().submit(request)

    async def _send_pending(self) -> None:
        async with self._turn:
            await super()._send_pending()
