"""What the Redis store says of servers that refuse: credentials, rights, memory, and roles."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Any

import pytest
import redis
from redis import exceptions

from stormcellar.stores import Delta, Outcome, Record, StoreFull, StoreRefused, StoreUnavailable
from stormcellar.stores.conformance.cases import ENDED, NOTHING, NOW, living, new_record
from stormcellar.stores.redis import RedisStore
from stormcellar.stores.redis.errors import store_error
from tests.conftest import StartServer
from tests.stores.redis.samples import OpenRedis, eventually, full, now, redis_client, sign_in
from tests.support.backends import Backend, Server


@pytest.mark.gen_test
async def test_wrong_credentials_are_refused(own_redis: Server, open_redis: OpenRedis) -> None:
    """No password, a wrong one and an unknown user are StoreRefused, which names none of them."""  # G9
    with redis_client(own_redis.port) as admin:
        admin.config_set("requirepass", "correct")
    scheme, _, place = own_redis.url.partition("//")

    for login in ("", ":wrong@", "nobody:wrong@"):
        store = open_redis(f"{scheme}//{login}{place}")
        with pytest.raises(StoreRefused) as caught:
            await store.ping()
        with pytest.raises(StoreRefused):
            await store.load(new_record().credential, now_ms=now())
        assert "wrong" not in str(caught.value)

    await open_redis(f"{scheme}//:correct@{place}").ping()


RIGHTS = "+@read +@write +@scripting +@pubsub +@connection +cluster +command +time"


def account(admin: redis.Redis, name: str, *rules: str) -> None:
    """Make an account with the password `pw` that may do what *rules* say, and nothing else."""
    command: Any = admin.execute_command
    command("ACL", "SETUSER", name, "reset", "on", ">pw", "resetchannels", *rules)


@pytest.mark.gen_test
async def test_an_account_with_just_the_rights_it_needs(each_redis: Backend, open_redis: OpenRedis) -> None:
    """An account limited to our keys and channel serves; one that may not write is refused by ping."""  # G10
    scheme, _, place = each_redis.url.partition("//")
    store, reader = open_redis(f"{scheme}//app:pw@{place}"), open_redis(f"{scheme}//reader:pw@{place}")
    with redis_client(each_redis.port) as admin:
        account(admin, "app", f"~{store._prefix}:*", f"&{store._prefix}:gone", *RIGHTS.split())
        account(admin, "reader", "~*", *RIGHTS.split(), "-@write")
    record = new_record()

    await store.ping()
    await store.create(record)
    outcome = await sign_in(store, record, "alice")
    listed = await store.of_user("alice", now_ms=now())
    destroyed = await store.destroy(record.handle, now_ms=now())

    assert (outcome, len(listed), destroyed) == (Outcome.APPLIED, 1, True)
    with pytest.raises(StoreRefused):
        await reader.ping()


@pytest.mark.gen_test
async def test_a_push_that_is_refused_does_not_undo_a_logout(
    each_redis: Backend, open_redis: OpenRedis
) -> None:
    """An account without the channel still destroys and rotates."""
    scheme, _, place = each_redis.url.partition("//")
    store = open_redis(f"{scheme}//mute:pw@{place}")
    with redis_client(each_redis.port) as admin:
        account(admin, "mute", "~*", "+@all")
    record, other = new_record(), new_record()
    await store.create(record)
    await store.create(other)

    answers = await store.destroy(record.handle, now_ms=now()), await sign_in(store, other, None)

    assert answers == (True, Outcome.APPLIED)


def writes_of(store: RedisStore, record: Record) -> list[Callable[[], Awaitable[Any]]]:
    """Return one call of each kind that needs memory."""
    credential, expires_ms = record.credential, record.expires_ms
    mixed = Delta(put={"c": b"3"}, drop=frozenset("a"))
    return [
        lambda: store.create(new_record()),
        lambda: store.create(new_record(user="bob")),
        lambda: store.apply(credential, mixed, now_ms=now(), expires_ms=None),
        lambda: store.apply(credential, NOTHING, now_ms=now() + 1, expires_ms=expires_ms + 1),
        lambda: sign_in(store, record, None, keep=frozenset()),
        lambda: sign_in(store, record, "bob"),
    ]


@pytest.mark.gen_test
async def test_a_full_server_refuses_writes_and_still_destroys(
    each_redis: Backend, open_redis: OpenRedis
) -> None:
    """At maxmemory every write is StoreFull and changes nothing; reading goes on, and a destroy is whole."""
    store = open_redis(each_redis.url)
    record = new_record(user="alice", data={"a": b"1", "b": b"2"})
    await store.create(record)

    with full(each_redis):
        for write in writes_of(store, record):
            with pytest.raises(StoreFull) as caught:
                await write()
            assert isinstance(caught.value.__cause__, exceptions.ResponseError)
        unchanged = await store.load(record.credential, now_ms=now())
        listed = await store.of_user("alice", now_ms=now())
        destroyed = await store.destroy(record.handle, now_ms=NOW)

    assert (unchanged, destroyed) == (record, True)
    assert [found.handle for found in listed] == [record.handle]
    assert await store.load(record.credential, now_ms=now()) == ENDED
    assert [found async for found in store.scan(now_ms=now())] == []


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["redis8", "redis6"])
async def test_a_replica_is_no_place_for_sessions(
    start_server: StartServer, open_redis: OpenRedis, name: str
) -> None:
    """On a read-only replica ping and writes are unavailable; without its master, reads are as well."""
    server = start_server(name)
    store = open_redis(server.url)
    record = new_record()
    await store.create(record)
    with redis_client(server.port) as admin:
        admin.replicaof("127.0.0.1", "1")

        for call in (
            store.ping,
            lambda: store.create(new_record()),
            lambda: store.destroy(record.handle, now_ms=now()),
        ):
            with pytest.raises(StoreUnavailable):
                await call()
        assert await store.load(record.credential, now_ms=now()) == record
        admin.config_set("replica-serve-stale-data", "no")
        with pytest.raises(StoreUnavailable):
            await store.load(record.credential, now_ms=now())


@pytest.mark.gen_test
async def test_a_cluster_without_its_slots_is_unavailable_and_recovers(
    start_server: StartServer, open_redis: OpenRedis
) -> None:
    """CLUSTERDOWN is an outage; when the slots are served again, so is the store."""
    # A node waits this long before it serves again.
    server = start_server("redis_cluster", extra=["--cluster-node-timeout", "500"])
    store = open_redis(server.url, timeout_s=1.0)
    record = new_record()
    await store.create(record)
    with redis_client(server.port) as admin:
        admin.execute_command("CLUSTER", "DELSLOTSRANGE", 0, 16383)
        for call in (
            lambda: store.load(record.credential, now_ms=now()),
            lambda: store.create(new_record()),
            lambda: living(store, [record.credential], now_ms=now()),
            store.ping,
        ):
            with pytest.raises(StoreUnavailable):
                await call()
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

    await eventually(store.ping)
    after = new_record()
    await eventually(lambda: store.create(after))
    assert await store.load(after.credential, now_ms=now()) == after


@pytest.mark.gen_test
async def test_redis_that_is_no_cluster_is_refused(redis8: Backend, open_redis: OpenRedis) -> None:
    """`redis+cluster://` on a single server is an error of ours, not redis-py's own."""
    with pytest.raises(StoreRefused) as caught:
        await open_redis(f"redis+cluster://127.0.0.1:{redis8.port}").ping()

    assert isinstance(caught.value.__cause__, exceptions.RedisClusterException)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.ConnectionError("refused"), StoreUnavailable),
        (exceptions.TimeoutError("late"), StoreUnavailable),
        (exceptions.BusyLoadingError("loading"), StoreUnavailable),
        (exceptions.ReadOnlyError("replica"), StoreUnavailable),
        (exceptions.MasterDownError("down"), StoreUnavailable),
        (exceptions.ClusterDownError("down"), StoreUnavailable),
        (exceptions.TryAgainError("later"), StoreUnavailable),
        (exceptions.MaxConnectionsError("pool"), StoreUnavailable),
        (exceptions.SlotNotCoveredError("slot"), StoreUnavailable),
        (exceptions.ResponseError("ERR unknown command 'AUTH', with args: 'hunter2'"), StoreRefused),
        (TimeoutError(), StoreUnavailable),
        (OSError("network"), StoreUnavailable),
        (exceptions.OutOfMemoryError("full"), StoreFull),
        (exceptions.AuthenticationError("hunter2"), StoreRefused),
        (exceptions.NoPermissionError("hunter2"), StoreRefused),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_drivers_errors_in_the_terms_of_the_contract(error: Exception, expected: type) -> None:
    """Each error has its place in the tree, and the message repeats nothing that a server said."""
    told = store_error("load", error)

    assert type(told) is expected
    assert str(told) == f"load: {type(error).__name__} from Redis"
    assert "hunter2" not in str(told.problem)


@pytest.mark.gen_test
async def test_socket_that_this_user_may_not_open_is_told(tmp_path: Path, open_redis: OpenRedis) -> None:
    """It is an outage, and the message says that it is the mode of the file."""
    path = tmp_path / "redis.sock"
    with socket(AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        with as_ordinary_user(), pytest.raises(StoreUnavailable) as caught:
            await open_redis(f"unix://{path}").ping()

    assert str(caught.value.problem) == (
        "this user may not open a file of the URL, a socket or a certificate; change its owner or mode"
    )


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Give up the rights of root, to whom every file is open, within the block."""
    own = os.geteuid()
    os.seteuid(own or 65534)
    yield
    os.seteuid(own)


@pytest.mark.parametrize("user", ["app", "session-keys", "channel-app"])
@pytest.mark.gen_test
async def test_missing_command_is_named_whatever_the_user_is_called(
    each_redis: Backend, open_redis: OpenRedis, user: str
) -> None:  # G10
    """A name with the word keys or channel does not make the advice one about keys or channels."""
    with redis_client(each_redis.port) as admin:
        account(admin, user, *RIGHTS.split(), "-hgetall", "~*", "&*")

        with pytest.raises(StoreRefused, match=r"lacks a right: \+hgetall; "):
            await open_redis(each_redis.url.replace("//", f"//{user}:pw@")).ping()
