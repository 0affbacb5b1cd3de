"""Sessions in an SQLite file: nothing to install, and they survive a restart. For one machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Self

from stormcellar.stores.base import Announcing, Scannable
from stormcellar.stores.errors import StoreFull, StoreUnavailable
from stormcellar.stores.records import (
    Absent,
    Credential,
    Delta,
    Handle,
    Outcome,
    Record,
    Rotation,
    StoreOptions,
    check_record,
    check_user,
)
from stormcellar.stores.sqlite import sessions
from stormcellar.stores.sqlite.counters import SQLiteCounters
from stormcellar.stores.sqlite.ended_sessions import EndedSessions
from stormcellar.stores.sqlite.file import DatabaseFile, path_in
from stormcellar.stores.sqlite.worker import Worker

PAGE = 100
"""Rows that one call reads at most, in `states` and `scan`: other calls come in between."""


class SQLiteStore(Announcing, Scannable):
    """Keeps each session in one row; `stormcellar.stores.sqlite.schema` shows the tables.

    One thread writes and one reads, each with a connection. A call is a part of a transaction, and is one
    atomic step with it: `BEGIN IMMEDIATE`, which waits for the writers of other processes, or `BEGIN` for a
    reader, which waits for nobody. Calls that are made while a transaction runs share the next one. ::

        create   SELECT; DELETE some rows that have had their time; INSERT
        load     SELECT
        find     SELECT
        apply    SELECT; UPDATE of data, seen and expiry
        rotate   SELECT; UPDATE of all columns; without a grace, INSERT INTO ended
        destroy  SELECT; REPLACE by a tombstone; INSERT INTO ended; on a full disk only DELETE
        of_user  SELECT by the index on the user
        states   SELECT for each credential, in transactions of 100
        scan     SELECT in the order of the row numbers, 100 at a time
        gone     SELECT FROM ended, after each change of our own and twice a second
        ping     an empty transaction of each thread

    Times are compared with those of the caller: the processes of one machine have one clock. `create` removes
    at most eight rows that have been over for ten minutes.

    Args:
        path: The file. It is opened, and created with mode 0600 if it is missing, at the first call.
        prefix: Sessions of different prefixes in one file are separate.
        timeout_s: How long a call waits.
    """

    def __init__(self, path: Path, *, prefix: str, timeout_s: float) -> None:
        file = DatabaseFile(path)
        self._prefix = prefix
        self._writer = Worker(file, writes=True, timeout_s=timeout_s)
        self._reader = Worker(file, writes=False, timeout_s=timeout_s)
        self._ended = EndedSessions(self._reader, prefix)
        self._counters = SQLiteCounters(self._writer, self._reader, prefix)

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Make a store for `sqlite:PATH`; see `path_in`."""
        return cls(path_in(url), prefix=options.prefix, timeout_s=options.timeout_s)

    async def create(self, record: Record) -> None:
        """Insert *record*; see `Store.create`."""
        check_record(record)
        await self._writer.run("create", lambda db: sessions.create(db, self._prefix, record))

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Return the live session, or why there is none; see `Store.load`."""
        return await self._reader.run("load", lambda db: sessions.load(db, self._prefix, credential, now_ms))

    async def find(self, handle: Handle, *, now_ms: int) -> Record | None:
        """Return the live session with its current verifier; see `Store.find`."""
        return await self._reader.run("find", lambda db: sessions.find_live(db, self._prefix, handle, now_ms))

    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        """Write *delta* if the session is live; see `Store.apply`."""
        return await self._writer.run(
            "apply", lambda db: sessions.apply(db, self._prefix, credential, delta, now_ms, expires_ms)
        )

    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        """Replace the verifier and what goes with it; see `Store.rotate`."""
        outcome = await self._writer.run(
            "rotate", lambda db: sessions.rotate(db, self._prefix, credential, rotation, now_ms)
        )
        self._ended.wake()
        return outcome

    async def destroy(self, handle: Handle, *, now_ms: int) -> bool:
        """End the session whatever its verifier; see `Store.destroy`."""
        try:
            was_there = await self._writer.run(
                "destroy", lambda db: sessions.destroy(db, self._prefix, handle, now_ms)
            )
        except StoreFull:
            was_there = await self._remove(handle)
        self._ended.wake()
        return was_there

    async def _remove(self, handle: Handle) -> bool:
        """Remove the record on a full disk, where a tombstone may need more space than there is."""
        try:
            return await self._writer.run("destroy", lambda db: sessions.remove(db, self._prefix, handle))
        except StoreFull as exc:
            # Not even the log can grow: that is an outage, and no longer a store that is full.
            raise StoreUnavailable("destroy", exc.problem) from exc

    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        """Return every live session of *user*; see `Store.of_user`."""
        check_user(user)
        return await self._reader.run("of_user", lambda db: sessions.of_user(db, self._prefix, user, now_ms))

    async def states(
        self, credentials: Iterable[Credential], *, now_ms: int
    ) -> dict[Credential, Record | Absent]:
        """Return what has become of the session of each of *credentials*; see `Announcing.states`."""
        found: dict[Credential, Record | Absent] = {}
        wanted = list(dict.fromkeys(credentials))
        for start in range(0, len(wanted), PAGE):
            found |= await self._states(wanted[start : start + PAGE], now_ms)
        return found

    async def _states(
        self, credentials: Sequence[Credential], now_ms: int
    ) -> dict[Credential, Record | Absent]:
        return await self._reader.run(
            "states", lambda db: sessions.states(db, self._prefix, credentials, now_ms)
        )

    async def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        """Yield the live records; see `Scannable.scan`."""
        last: int | None = 0
        while last is not None:
            records, last = await self._page(last, now_ms)
            for record in records:
                yield record

    async def _page(self, after: int, now_ms: int) -> tuple[list[Record], int | None]:
        return await self._reader.run("scan", lambda db: sessions.page(db, self._prefix, after, PAGE, now_ms))

    def gone(self) -> AsyncGenerator[Handle | None, None]:
        """Yield the handles of sessions that ended, those of other processes within half a second."""
        return self._ended.handles()

    def counters(self) -> SQLiteCounters:
        """Return the tallies under the same prefix, in the same file."""
        return self._counters

    async def ping(self) -> None:
        """Open the file for reading and for writing, and create it if it is missing."""
        await self._writer.run("ping", lambda db: None)
        await self._reader.run("ping", lambda db: None)

    async def aclose(self) -> None:
        """End every `gone` iterator, finish the calls that run, and close the file; see `Store.aclose`."""
        self._ended.close()
        await self._reader.aclose()
        await self._writer.aclose()
