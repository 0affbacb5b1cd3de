"""The contract on Redis 8.2, Redis 6.2 and a cluster, and the facts of what Redis holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from secrets import token_urlsafe
from typing import Any

import pytest
import redis

from stormcellar.stores import (
    TOMBSTONE_MS,
    Absent,
    Credential,
    Delta,
    DuplicateSession,
    Handle,
    Outcome,
    open_store,
)
from stormcellar.stores.conformance import StoreContract
from stormcellar.stores.conformance.cases import NOTHING, NOW, UNKNOWN, living, new_record, new_verifier
from stormcellar.stores.redis import RedisStore
from stormcellar.stores.redis.records import META
from tests.stores.redis.samples import collect, left_of, now, sign_in, verifier_of
from tests.support.backends import Backend


def everything_in(admin: redis.Redis) -> bytes:
    """Return every key and value of the server in one piece."""
    parts: list[bytes] = []
    for key in admin.scan_iter():
        read: Any = {
            b"hash": admin.hgetall,
            b"zset": lambda name: admin.zrange(name, 0, -1, withscores=True),
        }.get(admin.type(key), admin.dump)
        parts += [key, repr(read(key)).encode()]
    return b"\n".join(parts)


class TestContract(StoreContract):
    """The whole contract, on each kind of Redis."""

    @pytest.fixture
    def store_url(self, each_redis: Backend) -> str:
        """The URL of each kind."""
        return each_redis.url


@pytest.mark.gen_test
async def test_every_write_sets_the_expiry_of_the_key(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """After create, apply and rotate the key stays ten minutes longer than the record lives."""  # G6
    record = new_record(data={})
    key = f"{prefix}:s:{record.handle}"
    seen = []

    await store.create(record)
    seen.append(left_of(admin, key) - (record.expires_ms - NOW))
    await store.apply(record.credential, NOTHING, now_ms=NOW, expires_ms=record.expires_ms + 5_000)
    seen.append(left_of(admin, key) - (record.expires_ms + 5_000 - NOW))
    await sign_in(store, record, "alice", expires_ms=record.expires_ms - 60_000)
    seen.append(left_of(admin, key) - (record.expires_ms - 60_000 - NOW))

    assert [0 <= TOMBSTONE_MS - slack < 1000 for slack in seen] == [True, True, True]


@pytest.mark.gen_test
async def test_a_write_that_is_no_activity_keeps_the_expiry(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """Data written with no new expiry neither extends nor removes that of the key."""
    record = new_record()
    await store.create(record)

    await store.apply(record.credential, Delta(put={"x": b"1"}), now_ms=now(), expires_ms=None)

    left_ms = left_of(admin, f"{prefix}:s:{record.handle}")
    assert 0 <= record.expires_ms - NOW + TOMBSTONE_MS - left_ms < 1000


@pytest.mark.gen_test
async def test_a_dump_holds_no_secret(store: RedisStore, admin: redis.Redis) -> None:
    """Keys and values of the whole server contain verifiers, never what they are the hash of."""  # G1
    secrets = [token_urlsafe(32) for _ in range(4)]
    record = new_record(verifier=verifier_of(secrets[0]), user="alice")
    await store.create(record)
    await sign_in(store, record, "bob", verifier=verifier_of(secrets[1]), grace_ms=60_000)
    await store.load(Credential(record.handle, verifier_of(secrets[2])), now_ms=now())
    await store.apply(
        Credential(record.handle, verifier_of(secrets[3])), NOTHING, now_ms=now(), expires_ms=None
    )

    dump = everything_in(admin)

    assert [secret.encode() in dump for secret in secrets] == [False] * 4
    assert [verifier_of(secret).encode() in dump for secret in secrets] == [True, True, False, False]


@pytest.mark.gen_test
async def test_a_hash_holds_the_record_and_nothing_else(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """The fields are those of the layout, with the values given."""
    record = new_record(data={"cart": b"[1]"})

    await store.create(record)

    assert admin.hgetall(f"{prefix}:s:{record.handle}") == {
        b"#v": record.verifier.encode(),
        b"#c": b"%d" % record.created_ms,
        b"#r": b"%d" % record.rotated_ms,
        b"#s": b"%d" % record.seen_ms,
        b"#e": b"%d" % record.expires_ms,
        b"#d": b"%d" % record.deadline_ms,
        b"#m": record.client,
        b"cart": b"[1]",
    }


@pytest.mark.gen_test
async def test_every_mutation_survives_a_script_flush(store: RedisStore, admin: redis.Redis) -> None:
    """A server that forgot the scripts is sent their text, and answers the same."""
    record = new_record()
    rotated = new_verifier()

    admin.script_flush()
    await store.create(record)
    admin.script_flush()
    applied = await store.apply(record.credential, Delta(put={"x": b"1"}), now_ms=now(), expires_ms=None)
    admin.script_flush()
    bound = await sign_in(store, record, "alice", verifier=rotated)
    loaded = await store.load(Credential(record.handle, rotated), now_ms=now())
    admin.script_flush()
    destroyed = await store.destroy(record.handle, now_ms=now())

    assert (applied, bound, destroyed) == (Outcome.APPLIED, Outcome.APPLIED, True)
    assert not isinstance(loaded, Absent) and loaded.data == {**record.data, "x": b"1"}


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "other", ["{0}:s", "{0}*", "{0}:u", "?{1}", "{0}[a-z]", "{0}\\", "{0}:gone", "{{x}}{0}"]
)
async def test_two_prefixes_never_meet(
    store: RedisStore, each_redis: Backend, prefix: str, other: str
) -> None:
    """Stores whose prefixes begin or match alike see their own sessions only."""  # G11
    neighbour = open_store(each_redis.url, prefix=other.format(prefix, prefix[1:]))
    ours, theirs = new_record(user="alice"), new_record(user="alice")

    try:
        await store.create(ours)
        await neighbour.create(theirs)
        seen = [
            [record.handle async for record in store.scan(now_ms=now())],
            [record.handle async for record in neighbour.scan(now_ms=now())],
            [record.handle for record in await store.of_user("alice", now_ms=now())],
            [record.handle for record in await neighbour.of_user("alice", now_ms=now())],
        ]
        crossed = (
            await store.load(theirs.credential, now_ms=now()),
            await neighbour.destroy(ours.handle, now_ms=now()),
        )
    finally:
        await neighbour.aclose()

    assert seen == [[ours.handle], [theirs.handle]] * 2
    assert crossed == (UNKNOWN, False)


@pytest.mark.gen_test
async def test_a_prefix_hears_its_own_pushes_only(
    store: RedisStore, each_redis: Backend, prefix: str
) -> None:
    """What ends under a prefix that ours begins is not announced to us."""
    neighbour = open_store(each_redis.url, prefix=f"{prefix}*")
    heard: list[Handle] = []
    listening = asyncio.ensure_future(collect(store, heard))
    ours, theirs = [new_record() for _ in range(200)], [new_record() for _ in range(200)]

    try:
        for mine, other in zip(ours, theirs, strict=True):
            await neighbour.create(other)
            await neighbour.destroy(other.handle, now_ms=now())
            await store.create(mine)
            await store.destroy(mine.handle, now_ms=now())
            if heard:
                break
            await asyncio.sleep(0.01)
    finally:
        listening.cancel()
        await neighbour.aclose()

    assert heard and not set(heard) & {record.handle for record in theirs}


@pytest.mark.gen_test
async def test_hostile_data_is_kept_byte_for_byte(store: RedisStore) -> None:
    """Values are bytes to Redis and to Lua: empty, binary, long, or like the scripts' own marks."""
    values = [b"", b"\0\xff\r\n", b"1" * 65_536, b"0", b"#v", b"nil", b"1e400", b"-0"]
    data = {f"k{number}": value for number, value in enumerate(values)}
    record = new_record(data={"_": b""}, client=bytes(range(256)))
    await store.create(record)

    await store.apply(
        record.credential, Delta(put=data, expect={"_": b"", "a": None}), now_ms=now(), expires_ms=None
    )

    assert await store.load(record.credential, now_ms=now()) == replace(record, data={"_": b"", **data})


@pytest.mark.gen_test
async def test_thousands_of_keys_fit_a_script(store: RedisStore) -> None:
    """Sessions far beyond the limit of 256 keys pass through the scripts whole."""
    data = {f"k{number}": b"%d" % number for number in range(5_000)}
    record = new_record(data=data)
    await store.create(record)

    outcome = await store.apply(
        record.credential,
        Delta(drop=frozenset(data) - {"k0"}, expect=data),
        now_ms=now(),
        expires_ms=None,
    )

    assert outcome is Outcome.APPLIED
    assert await store.load(record.credential, now_ms=now()) == replace(record, data={"k0": b"0"})


@pytest.mark.gen_test
async def test_thousands_of_keys_are_put_and_dropped_by_activity(store: RedisStore) -> None:
    """What does not fit Lua's stack at once is all put with a new expiry, and all dropped by a rotation."""
    record, verifier = new_record(data={"before": b"1"}), new_verifier()
    data = {f"k{number}": b"%d" % number for number in range(5_000)}
    later = record.expires_ms + 5_000
    await store.create(record)

    await store.apply(record.credential, Delta(put=data), now_ms=now(), expires_ms=later)
    put = await store.load(record.credential, now_ms=now())
    await sign_in(store, record, None, verifier=verifier, keep=frozenset({"k1"}))
    kept = await store.load(Credential(record.handle, verifier), now_ms=now())

    assert not isinstance(put, Absent) and not isinstance(kept, Absent)
    assert (put.data, put.expires_ms) == ({"before": b"1", **data}, later)
    assert kept.data == {"k1": b"1"}


@pytest.mark.gen_test
async def test_destroy_takes_the_session_off_the_index(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """A destroyed session leaves its tombstone behind, and no index entry."""
    record = new_record(user="alice")
    await store.create(record)

    await store.destroy(record.handle, now_ms=now())

    left = [key for key in admin.scan_iter() if key.startswith(prefix.encode())]
    assert left == [f"{prefix}:s:{record.handle}".encode()]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "put",
    [
        lambda admin, key: admin.set(key, "x"),
        lambda admin, key: admin.sadd(key, "x"),
        lambda admin, key: admin.hset(key, "#v", "x"),
        lambda admin, key: admin.hset(key, mapping={**dict.fromkeys(META, 1), "#e": "soon"}),
        lambda admin, key: admin.hset(key, mapping={"#x": 1, "#u": "alice"}),
        lambda admin, key: admin.hset(key, "#x", "soon"),
    ],
    ids=["string", "set", "partial", "no-number", "part-of-a-tombstone", "tombstone-of-no-time"],
)
async def test_what_is_no_record_counts_as_ended(
    store: RedisStore,
    admin: redis.Redis,
    prefix: str,
    put: Callable[[redis.Redis, str], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A foreign type or a broken record is ended, reported once, and destroy removes it."""  # G4
    record = new_record()
    put(admin, f"{prefix}:s:{record.handle}")

    answers = (
        await store.load(record.credential, now_ms=now()),
        await store.load(record.credential, now_ms=now()),
        await living(store, [record.credential], now_ms=now()),
        await store.apply(record.credential, NOTHING, now_ms=now(), expires_ms=now()),
        await sign_in(store, record, "alice"),
        await store.of_user("alice", now_ms=now()),
        [found async for found in store.scan(now_ms=now())],
    )
    with pytest.raises(DuplicateSession):
        await store.create(record)
    destroyed = (
        await store.destroy(record.handle, now_ms=now()),
        await store.destroy(record.handle, now_ms=now()),
    )

    assert answers == (UNKNOWN, UNKNOWN, set(), Outcome.GONE, Outcome.GONE, [], [])
    assert destroyed == (True, False)
    assert [message for message in caplog.messages if record.handle in message] == [
        f"the key of session {record.handle!r} does not hold a record; the session counts as ended"
    ]


@pytest.mark.gen_test
async def test_a_live_neighbour_of_a_broken_record_is_found(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """In one batch with keys of a foreign type the live sessions are still told."""
    live, broken = [new_record() for _ in range(70)], [new_record() for _ in range(70)]
    for record in live:
        await store.create(record)
    for record in broken:
        admin.set(f"{prefix}:s:{record.handle}", "x")
    mixed = [record.credential for pair in zip(live, broken, strict=True) for record in pair]

    found = await living(store, mixed, now_ms=now())

    assert found == {record.credential for record in live}


@pytest.mark.gen_test
async def test_scan_pages_through_many_sessions(store: RedisStore, admin: redis.Redis) -> None:
    """More sessions than fit in a page are all found, with data and current verifier, and without KEYS."""
    records = [new_record(data={"n": b"%d" % number}) for number in range(600)]
    await asyncio.gather(*(store.create(record) for record in records))
    admin.config_resetstat()

    found = {record.handle: record async for record in store.scan(now_ms=now())}

    assert found == {record.handle: record for record in records}
    assert "cmdstat_keys" not in dict(admin.info("commandstats"))


@pytest.mark.gen_test
async def test_the_usual_operations_are_one_command_each(store: RedisStore, admin: redis.Redis) -> None:
    """Load, apply, create without a user and rotate without a new one cost one round trip."""
    record, rotated = new_record(), new_verifier()
    bound = new_record(user="alice")
    await store.create(bound)
    await store.ping()
    await store.create(new_record())  # the scripts are known from here on
    await store.apply(bound.credential, NOTHING, now_ms=now(), expires_ms=None)
    await sign_in(store, new_record(), None)
    admin.config_resetstat()

    await store.create(record)
    await store.load(record.credential, now_ms=now())
    await store.apply(record.credential, NOTHING, now_ms=now(), expires_ms=None)
    await sign_in(store, bound, "alice", verifier=rotated, grace_ms=1_000)

    stats: Any = admin.info("commandstats")
    assert (stats["cmdstat_evalsha"]["calls"], stats["cmdstat_hgetall"]["calls"]) == (3, 1)
    assert "cmdstat_zadd" not in stats
