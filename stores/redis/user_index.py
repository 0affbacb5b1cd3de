"""`UserIndex`: the sorted set of the handles of each user. A score is when the entry was added."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from contextlib import aclosing, suppress

from stormcellar.stores.errors import StoreError
from stormcellar.stores.records import Handle, Record
from stormcellar.stores.redis.client import BATCH, RedisClient
from stormcellar.stores.redis.eviction import Eviction
from stormcellar.stores.redis.records import META, Reader, Stored, kept_ms, user_bytes
from stormcellar.stores.redis.scripts import CONFIRM, INDEX, PAGE, PRUNE, WHOLE

BIND_MS = 60_000
"""How long an index entry may exist before its record. Longer than any call and any clock difference."""

PAGE_SIZE = 1000
"""About how many entries a reader takes at a time: it is fast, and no other command waits for long."""


class UserIndex:
    """Reads the indexes, and removes stale entries: those without a record, or of another user's session.

    A session that expires leaves its entry behind. Two rules keep an index small, whatever its size. A reader
    removes what is stale page by page, so one that times out has made the index smaller for the next. And
    each call that adds an entry checks `SAMPLE` others, chosen at random: the more are stale, the more it
    removes, so that stale entries stay fewer than the others.

    Where Redis may evict keys, an index can be lost while its sessions live, and the next sign-in begins
    another one, which looks like any. So there a reader trusts only an index with the mark `#whole`, and
    scans all records if there is none.

    An entry without a record stays for `BIND_MS`: in a cluster, its record may still be on its way.
    """

    def __init__(self, client: RedisClient, prefix: str, reader: Reader, eviction: Eviction) -> None:
        self._client = client
        self._prefix = prefix
        self._reader = reader
        self._eviction = eviction
        self._renewals: set[asyncio.Task[None]] = set()

    def key(self, user: bytes) -> str:
        """Return the key of the index of *user*: untrusted text of any length, which its hash is not."""
        return f"{self._prefix}:u:{hashlib.sha256(user).hexdigest()}"

    async def add(self, user: str, handle: Handle, added_ms: int, stays_ms: int) -> list[bytes]:
        """Add an entry, where no script can do it with the record; return the sample to `trim`."""
        sample: list[bytes] = await self._client.run_durably(
            "index", INDEX, [self.key(user_bytes(user))], handle, added_ms, stays_ms
        )
        return sample

    def renew(self, user: bytes, handle: Handle, deadline_ms: int, now_ms: int) -> None:
        """Add the entry of a session in use again, if it is lost; nobody waits for it.

        So an index is no less recently used than its sessions, and one that is lost comes back with them.
        """
        task = asyncio.ensure_future(self._renew(user, handle, deadline_ms, now_ms))
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)

    async def _renew(self, user: bytes, handle: Handle, deadline_ms: int, now_ms: int) -> None:
        with suppress(StoreError):
            await self._add(user, handle, now_ms, deadline_ms, now_ms)

    async def _add(self, user: bytes, name: str, score: int, deadline_ms: int, now_ms: int) -> None:
        stays_ms = kept_ms(deadline_ms, now_ms=now_ms) + BIND_MS
        await self._client.run("index", INDEX, [self.key(user)], name, score, stays_ms)

    async def aclose(self) -> None:
        """Wait for the entries that are being added."""
        await asyncio.gather(*self._renewals)

    async def discard(self, user: bytes, handle: Handle, until: float) -> None:
        """Remove the entry of a destroyed session: handles are never reused, so nothing can have bound it."""
        with suppress(StoreError):
            async with self._client.within("destroy", until=until):
                await self._client.write("destroy", "ZREM", self.key(user), handle)

    async def records(self, user: str, *, now_ms: int) -> list[Record]:
        """Return the live sessions of *user*, each once, `data` left empty; remove what is stale."""
        wanted = user_bytes(user)
        async with self._client.within("of_user") as until:
            found = await self._listed(wanted, now_ms, until)
            if await self._eviction.is_possible() and not await self._is_whole(wanted):
                found.update(await self._scanned(wanted, now_ms))
        return [record for record in found.values() if record.expires_ms > now_ms]

    async def _listed(self, user: bytes, now_ms: int, until: float) -> dict[Handle, Record]:
        """Return the sessions in the index of *user*, live or expired."""
        found, cursor = dict[Handle, Record](), b"0"
        while True:
            cursor, names = await self._client.run_as_read(
                "of_user", PAGE, [self.key(user)], cursor, PAGE_SIZE
            )
            records, stale = await self._read(user, names)
            found.update((record.handle, record) for record in records)
            if stale:
                await self.prune(user, stale, now_ms, until)
            if cursor == b"0":
                return found

    async def _is_whole(self, user: bytes) -> bool:
        """Return whether the index has the mark that a scan left. Eviction takes the mark with the index."""
        score = await self._client.read("of_user", "ZSCORE", self.key(user), "#whole")
        return isinstance(score, bytes)

    async def _scanned(self, user: bytes, now_ms: int) -> dict[Handle, Record]:
        """Return the sessions of *user* among all, live or expired; add them to the index, and mark it.

        The mark is true although sign-ins go on: they add to the index, and if it is evicted during the scan,
        the entry of this scan is lost with it, and there is no mark.
        """
        found = dict[Handle, Record]()
        scan = 1000 * now_ms + secrets.randbelow(1000)
        await self._add(user, "#scan", scan, now_ms, now_ms)
        async with aclosing(self._client.handles(f"{self._prefix}:s:", user=user)) as pages:
            async for names in pages:
                records, _ = await self._read(user, names)
                found.update((record.handle, record) for record in records)
        for record in found.values():
            await self._add(user, record.handle, now_ms, record.deadline_ms, now_ms)
        await self._client.run("index", WHOLE, [self.key(user)], scan)
        return found

    async def trim(self, user: bytes, sample: Sequence[bytes], now_ms: int, until: float) -> None:
        """Remove what is stale in *sample*. Best effort, after a sign-in that is complete."""
        with suppress(StoreError):
            async with self._client.within("prune", until=until):
                if await self._exist(sample) < len(sample):
                    _, stale = await self._read(user, sample)
                    await self.prune(user, stale, now_ms, until)

    async def prune(self, user: bytes, names: Sequence[str | bytes], now_ms: int, until: float) -> None:
        """Remove from the index of *user* those of *names* that are too old to be waiting for a record.

        Best effort: an entry that stays is harmless, and the next reader tries again.
        """
        with suppress(StoreError):
            async with self._client.within("prune", until=until):
                await self._client.run("prune", PRUNE, [self.key(user)], now_ms - BIND_MS, *names)

    async def _read(self, user: bytes, names: Sequence[bytes]) -> tuple[list[Record], list[bytes]]:
        """Return the records of *user* behind the entries *names*, live or expired, and the stale entries."""
        names = [name for name in names if not name.startswith(b"#")]
        # Where an index is large, most of it is stale.
        if len(names) > BATCH and await self._exist(names) == 0:
            return [], [*names]
        replies = await self._client.read_each("of_user", "HMGET", self._keys(names), *META)
        records, stale = [], []
        for name, reply in zip(names, replies, strict=True):
            stored = self._reader.read_meta(Handle(name.decode(errors="replace")), reply)
            if isinstance(stored, Stored) and (stored.record.user or "").encode() == user:
                records.append(stored.record)
            else:
                stale.append(name)
        if stale and self._client.is_durable:
            await self._confirm(stale)
        return records, stale

    async def _confirm(self, names: Sequence[bytes]) -> None:
        """Wait until replicas know of the sessions behind the entries *names* that were ended.

        A destroy that they did not confirm leaves the entry, and a repeated one finds no live session.
        """
        await asyncio.gather(
            *(self._client.run_durably("of_user", CONFIRM, [key]) for key in self._keys(names))
        )

    async def _exist(self, names: Sequence[bytes]) -> int:
        """Return how many of the entries *names* have a record; on one server with one command."""
        keys = self._keys(names)
        if self._client.is_cluster:
            return sum(await self._client.read_each("of_user", "EXISTS", keys))
        found: int = await self._client.read("of_user", "EXISTS", *keys)
        return found

    def _keys(self, names: Sequence[bytes]) -> list[str]:
        return [f"{self._prefix}:s:{name.decode(errors='replace')}" for name in names]
