"""Sessions in Redis 6.2 or newer, alone or as a cluster. `redis.records` describes the stored hash."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, suppress
from typing import Self

from stormcellar.stores.base import Announcing, Scannable
from stormcellar.stores.errors import DuplicateSession, StoreUnavailable
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
)
from stormcellar.stores.redis.client import BATCH, HANDLE, RedisClient
from stormcellar.stores.redis.counters import RedisCounters
from stormcellar.stores.redis.eviction import Eviction
from stormcellar.stores.redis.records import (
    STATE,
    Argument,
    Reader,
    Stored,
    expect_arguments,
    keep_arguments,
    kept_ms,
    record_arguments,
    rotation_arguments,
    user_bytes,
    write_arguments,
)
from stormcellar.stores.redis.rights import Rights
from stormcellar.stores.redis.scripts import APPLY, CREATE, DESTROY, ROTATE
from stormcellar.stores.redis.url import connect, replicas_of
from stormcellar.stores.redis.user_index import BIND_MS, UserIndex

RECONNECT_S, RECONNECT_MOST_S = 0.1, 2.0

_OUTCOMES = {outcome.value.encode(): outcome for outcome in Outcome}


class RedisStore(Announcing, Scannable):
    """One hash per record, one sorted set per user, one channel.

    ============  =====================================================================================
    create        EVALSHA: EXISTS, index (only with a user), HSET, PEXPIRE
    load, find    HGETALL
    apply         EVALSHA: HMGET, HGET of each expected key, HSET, HDEL, PEXPIRE; once a minute then: index
    rotate        EVALSHA: as apply, HKEYS, PUBLISH; with a new user or deadline: index
    destroy       EVALSHA: HMGET, DEL, HSET and PEXPIRE of the tombstone, PUBLISH; with a user: then ZREM
    of_user       for each 1000 entries EVALSHA: ZSCAN; EXISTS, if there are many; HMGET of each handle, if
                  any exists; with stale entries: then EVALSHA: ZMSCORE, ZREM. Where keys may be evicted:
                  ZSCORE of the mark; without it EVAL: SCAN, HGET of each key; index, ZADD, ZREM
    states        HMGET of each handle
    gone          SUBSCRIBE
    scan          SCAN with MATCH and COUNT on each primary node, HGETALL of each handle
    ping          each command above on keys that no session has, see `redis.rights`; INFO on each primary
    (index)       ZADD GT, PTTL, PEXPIRE, ZCARD; with more than 8 entries ZRANDMEMBER of 4, then EXISTS
    ============  =====================================================================================

    Keys are `{prefix}:s:{handle}` and `{prefix}:u:{SHA-256 of the user}`, the channel is `{prefix}:gone`. A
    script that the server does not have is sent as EVAL. The commands of one iteration of the event loop are
    sent in one write, 64 at most, reads and writes separately, in a cluster to each node.

    On one server, index and record change in one step. In a cluster a script can use one slot only, so the
    index has its own EVALSHA: before `create`, and before `rotate` is sent a second time because the first
    reply asked for it. So an entry is added before its record is bound, and removed after. Readers of the
    index check each record, so a surplus entry is harmless.
    """

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._channel = f"{prefix}:gone"
        self._reader = Reader()
        self._eviction = Eviction(client)
        self._index = UserIndex(client, prefix, self._reader, self._eviction)
        self._rights = Rights(client, prefix)

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Make a store for a URL of the schemes `redis`, `rediss`, `redis+unix`, or one of those below.

        The path is the database; `redis+unix://` takes it as `?db=`. `redis+cluster://` takes several hosts,
        separated by commas, and `?ssl=true`; so does `redis+sentinel://`, with the hosts of the Sentinels and
        the path `/service/database`, and its options `sentinel_username` and `sentinel_password`. `valkey`,
        `valkeys` and `unix` are other names for the first three. With TLS the certificate is verified,
        against `ssl_ca_certs` if given; `ssl_certfile` and `ssl_keyfile` are the client's own. A cluster
        behind a proxy that hides it is not supported: there, binding a user would be one script on keys of
        two slots. With `?wait=N`, create, rotate and destroy return when N replicas have the write.
        """
        driver, timeout_s = connect(url, options), options.timeout_s
        return cls(RedisClient(driver, timeout_s=timeout_s, replicas=replicas_of(url)), options.prefix)

    async def create(self, record: Record) -> None:
        """Insert *record*. A key of another type at its place counts as a duplicate."""
        check_record(record)
        added_ms, until = max(record.created_ms, record.rotated_ms, record.seen_ms), self._client.until()
        entry = (record.handle, added_ms, kept_ms(record.deadline_ms, now_ms=added_ms) + BIND_MS)
        arguments = [kept_ms(record.expires_ms, now_ms=added_ms), *entry, *record_arguments(record)]
        keys, sample = self._bound_keys(record.handle, record.user), []
        if record.user is None or len(keys) > 1:
            reply, sample = await self._client.run_durably("create", CREATE, keys, *arguments)
        else:
            async with self._client.within("create", until=until):
                sample = await self._index.add(record.user, *entry)
                reply, _ = await self._client.run_durably("create", CREATE, keys, *arguments)
        if reply == b"duplicate":
            raise DuplicateSession(record.handle)
        if record.user is not None and sample:
            await self._index.trim(user_bytes(record.user), sample, added_ms, until)

    async def load(self, credential: Credential, *, now_ms: int) -> Record | Absent:
        """Return one atomic snapshot of the live session, or why there is none."""
        handle, verifier = credential
        reply = await self._client.read("load", "HGETALL", self._key(handle))
        stored = self._reader.read(handle, reply)
        return stored.seen_by(verifier, now_ms=now_ms) if isinstance(stored, Stored) else stored

    async def find(self, handle: Handle, *, now_ms: int) -> Record | None:
        """Return the live session with its current verifier."""
        reply = await self._client.read("find", "HGETALL", self._key(handle))
        stored = self._reader.read(handle, reply)
        if isinstance(stored, Stored) and stored.record.expires_ms > now_ms:
            return stored.record
        return None

    async def apply(
        self, credential: Credential, delta: Delta, *, now_ms: int, expires_ms: int | None
    ) -> Outcome:
        """Write *delta* if the session is live and every `expect` holds, and slide the expiry."""
        handle, verifier = credential
        reply = await self._client.run(
            "apply",
            APPLY,
            [self._key(handle)],
            *(verifier, now_ms),
            *(("", 0) if expires_ms is None else (expires_ms, kept_ms(expires_ms, now_ms=now_ms))),
            *expect_arguments(delta),
            *write_arguments(delta),
        )
        if type(reply) is list:
            _, user, deadline_ms = reply
            self._index.renew(user, handle, int(deadline_ms), now_ms)
            return Outcome.APPLIED
        return _OUTCOMES[reply]

    async def rotate(self, credential: Credential, rotation: Rotation, *, now_ms: int) -> Outcome:
        """Replace the verifier, and with it everything that changes at sign-in, in one step."""
        handle, user, added_ms = credential.handle, rotation.user, rotation.rotated_ms
        bound = b"" if user is None else user_bytes(user)
        indexed_ms = kept_ms(rotation.deadline_ms, now_ms=added_ms) + BIND_MS
        before = [credential.verifier, now_ms, *rotation_arguments(rotation)]
        before.append(kept_ms(rotation.expires_ms, now_ms=added_ms))
        after: list[Argument] = [
            *(indexed_ms, self._channel, handle),
            *expect_arguments(rotation.delta),
            *keep_arguments(rotation.keep),
            *write_arguments(rotation.delta),
        ]
        keys, until, run = self._bound_keys(handle, user), self._client.until(), self._client.run_durably
        outcome, previous, sample = await run("rotate", ROTATE, keys, *before, 0, *after)
        if outcome == b"unindexed":
            assert user is not None
            async with self._client.within("rotate", until=until):
                sample = await self._index.add(user, handle, added_ms, indexed_ms)
                outcome, previous, _ = await run("rotate", ROTATE, keys, *before, 1, *after)
        if previous not in (b"", bound):
            await self._index.prune(previous, [handle], added_ms, until)
        if sample:
            await self._index.trim(bound, sample, added_ms, until)
        return _OUTCOMES[outcome]

    async def destroy(self, handle: Handle, *, now_ms: int) -> bool:
        """End the session whatever its verifier. A key of another type at its place is removed as well."""
        until = self._client.until()
        arguments = (self._channel, handle, now_ms)
        removed, user = await self._client.run_durably("destroy", DESTROY, [self._key(handle)], *arguments)
        if user:
            await self._index.discard(user, handle, until)
        return bool(removed)

    async def of_user(self, user: str, *, now_ms: int) -> list[Record]:
        """Return every live session of *user* bound before the call, each once, `data` left empty."""
        return await self._index.records(user, now_ms=now_ms)

    async def states(
        self, credentials: Iterable[Credential], *, now_ms: int
    ) -> dict[Credential, Record | Absent]:
        """Return what has become of the session of each of *credentials*; exact for each."""
        asked = list(dict.fromkeys(credentials))
        async with self._client.within("states"):
            keys = [self._key(handle) for handle, _ in asked]
            replies = await self._client.read_each("states", "HMGET", keys, *STATE)
        found: dict[Credential, Record | Absent] = {}
        for credential, reply in zip(asked, replies, strict=True):
            stored = self._reader.read_meta(credential.handle, reply)
            if isinstance(stored, Stored):
                found[credential] = stored.state(credential.verifier, now_ms=now_ms)
            else:
                found[credential] = stored
        return found

    async def gone(self) -> AsyncGenerator[Handle | None, None]:
        """Yield None at each new subscription, and the handle of each end as it is published."""
        delay_s = RECONNECT_S
        while True:
            with suppress(StoreUnavailable):
                async with aclosing(self._client.messages(self._channel)) as messages:
                    async for message in messages:
                        delay_s = RECONNECT_S
                        if message is None:
                            yield None
                        elif HANDLE.fullmatch(message):
                            yield Handle(message.decode())
            if not await self._client.pause(delay_s):
                return
            delay_s = min(2 * delay_s, RECONNECT_MOST_S)

    async def scan(self, *, now_ms: int) -> AsyncIterator[Record]:
        """Yield the live records with their data, at most `BATCH` of them in memory at a time."""
        async with aclosing(self._client.handles(self._key(Handle("")))) as pages:
            async for names in pages:
                handles = [Handle(name.decode()) for name in names]
                for first in range(0, len(handles), BATCH):
                    for record in await self._load_each(handles[first : first + BATCH]):
                        if record.expires_ms > now_ms:
                            yield record

    def counters(self) -> RedisCounters:
        """Return the tallies under the same prefix, on the same connections."""
        return RedisCounters(self._client, self._prefix)

    async def ping(self) -> None:
        """Try each right that sessions need; warn if the server may evict sessions."""
        async with self._client.within("ping"):
            await self._rights.check()
            await self._eviction.warn()

    async def server_times(self) -> AsyncIterator[int]:
        """Yield the time of each primary node. INFO has it, so the account needs no right to TIME."""
        async for info in self._client.info("server"):
            if "server_time_usec" in info:
                yield int(info["server_time_usec"]) // 1000

    async def aclose(self) -> None:
        """End every `gone` iterator and close the connections."""
        await self._client.aclose()
        await self._index.aclose()

    def _key(self, handle: Handle) -> str:
        return f"{self._prefix}:s:{handle}"

    def _bound_keys(self, handle: Handle, user: str | None) -> list[str]:
        """Return the keys that binding *user* changes. In a cluster only the record; see `UserIndex`."""
        if user is None or self._client.is_cluster:
            return [self._key(handle)]
        return [self._key(handle), self._index.key(user_bytes(user))]

    async def _load_each(self, handles: Sequence[Handle]) -> list[Record]:
        async with self._client.within("scan"):
            replies = await self._client.read_each("scan", "HGETALL", [self._key(each) for each in handles])
        read = map(self._reader.read, handles, replies)
        return [stored.record for stored in read if isinstance(stored, Stored)]
