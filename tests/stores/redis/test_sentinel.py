"""Sentinels name the primary: the store follows a failover, and none of its connections stays behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock

import pytest
import redis
from redis.asyncio.sentinel import SentinelManagedConnection

from stormcellar.stores import Handle, Record, StoreRefused, StoreUnavailable
from stormcellar.stores.conformance.cases import ENDED, NOW, UNKNOWN, new_record
from stormcellar.stores.redis.client import BATCH
from tests.conftest import StartServer
from tests.stores.redis.samples import OpenRedis, announced, collect, eventually, now, redis_client, until
from tests.support.backends import Server

OPTIONS = {"down-after-milliseconds": 500, "failover-timeout": 5000}


class Watched:
    """A primary, its replica, and Sentinels of a service named `primary`."""

    def __init__(self, start_server: StartServer, *, sentinels: int, password: str = "") -> None:
        fast = ["--repl-diskless-sync-delay", "0"]
        self.primary, self.replica = (start_server("redis8", extra=fast) for _ in range(2))
        for server in (self.primary, self.replica):
            with redis_client(server.port) as admin:
                admin.config_set("masterauth", password)
                admin.config_set("requirepass", password)
        self.sentinels = [start_server("sentinel") for _ in range(sentinels)]
        self._password = password
        with self._admin(self.replica) as admin:
            admin.replicaof("127.0.0.1", str(self.primary.port))
            wait_until(lambda: admin.info("replication")["master_link_status"] == "up")
        for sentinel in self.sentinels:
            with redis_client(sentinel.port) as admin:
                quorum = sentinels // 2 + 1
                admin.execute_command("SENTINEL MONITOR", "primary", "127.0.0.1", self.primary.port, quorum)
                options = OPTIONS | ({"auth-pass": password} if password else {})
                for name, value in options.items():
                    admin.execute_command("SENTINEL SET", "primary", name, value)
        for sentinel in self.sentinels:
            wait_until(lambda sentinel=sentinel: self._is_aware(sentinel))

    @property
    def place(self) -> str:
        """The addresses of the Sentinels and the service, as in a URL."""
        return ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels) + "/primary"

    def fail_over(self) -> None:
        """Exchange primary and replica; both go on running."""
        with redis_client(self.sentinels[0].port) as admin:
            wait_until(lambda: _is_ordered(admin))
        self.wait_until_replaced()

    def wait_until_replaced(self) -> None:
        """Wait until the replica is the primary, and the Sentinels say so."""
        with self._admin(self.replica) as replica:
            wait_until(lambda: replica.info("replication")["role"] == "master")
        for sentinel in self.sentinels:
            with redis_client(sentinel.port) as admin:
                wait_until(lambda admin=admin: self.replica.port == _named(admin))

    def _is_aware(self, sentinel: Server) -> bool:
        with redis_client(sentinel.port) as admin:
            state: Any = admin.sentinel_master("primary")
            others = state["num-other-sentinels"]
            is_complete = state["num-slaves"] == 1 and others == len(self.sentinels) - 1
            return bool(is_complete and not state["is_sdown"])

    def _admin(self, server: Server) -> Any:
        return redis.Redis(port=server.port, protocol=2, password=self._password or None)


def _named(admin: Any) -> int:
    """Return the port of the primary that a Sentinel names."""
    _, port = admin.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "primary")
    return int(port)


def _is_ordered(admin: Any) -> bool:
    """Order the failover; a Sentinel refuses as long as it has not heard from the replica."""
    try:
        admin.execute_command("SENTINEL FAILOVER", "primary")
    except redis.ResponseError as exc:
        if "NOGOODSLAVE" not in str(exc):
            raise
        return False
    return True


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until *holds*, at most some seconds."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.gen_test(timeout=90)
async def test_ordered_failover_moves_every_connection(
    start_server: StartServer, open_redis: OpenRedis
) -> None:
    """The former primary goes on answering reads with old data; nobody asks it."""
    watched = Watched(start_server, sentinels=1)
    store = open_redis(f"redis+sentinel://{watched.place}")
    record = new_record()
    await store.create(record)
    await asyncio.gather(*(store.load(record.credential, now_ms=now()) for _ in range(10 * BATCH)))

    await asyncio.to_thread(watched.fail_over)
    await eventually(store.ping)
    destroyed = await eventually(lambda: store.destroy(record.handle, now_ms=NOW))
    loads = (store.load(record.credential, now_ms=now()) for _ in range(10 * BATCH))
    answers = await asyncio.gather(*loads)

    assert destroyed is True
    assert answers == [ENDED] * len(answers)
    with redis_client(watched.replica.port) as admin:
        assert admin.exists(f"{store._prefix}:s:{record.handle}")


@pytest.mark.gen_test(timeout=90)
async def test_connection_that_was_being_made_goes_to_the_new_primary(
    start_server: StartServer, open_redis: OpenRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Sentinels name another primary after it asked for the address, and before it is connected."""
    watched = Watched(start_server, sentinels=1)
    store = open_redis(f"redis+sentinel://{watched.place}")
    pool: Any = store._client._driver.connection_pool
    connected: list[int] = []
    connect_to = SentinelManagedConnection.connect_to

    async def connect_slowly(connection: Any, address: Any) -> None:
        await connect_to(connection, address)
        connected.append(address[1])
        if len(connected) == 1:
            named = ("127.0.0.1", watched.replica.port)
            monkeypatch.setattr(pool.sentinel_manager, "discover_master", AsyncMock(return_value=named))
            await pool.get_master_address()

    monkeypatch.setattr(SentinelManagedConnection, "connect_to", connect_slowly)
    record = new_record()

    assert await store.load(record.credential, now_ms=now()) == UNKNOWN
    assert connected == [watched.primary.port, watched.replica.port]


@pytest.mark.gen_test(timeout=90)
async def test_primary_that_dies_is_replaced(start_server: StartServer, open_redis: OpenRedis) -> None:
    """Two of three Sentinels agree; the store serves what was acknowledged, without a restart."""
    watched = Watched(start_server, sentinels=3)
    store = open_redis(f"redis+sentinel://{watched.place}")
    record = new_record()
    await store.create(record)
    with redis_client(watched.primary.port) as admin:
        admin.publish("nobody", "")  # WAIT is for what its own client wrote
        assert admin.wait(1, 5000) == 1

    watched.primary.kill()
    with pytest.raises(StoreUnavailable):
        await store.create(new_record())
    after = new_record()
    await eventually(lambda: store.create(after))

    assert await store.load(after.credential, now_ms=now()) == after
    assert await store.load(record.credential, now_ms=now()) == record


@pytest.mark.gen_test(timeout=90)
async def test_calls_soon_follow_an_ordered_failover(
    start_server: StartServer, open_redis: OpenRedis
) -> None:
    """The former primary takes writes for some ten seconds more, and loses them; soon it gets none."""
    watched = Watched(start_server, sentinels=1)
    store = open_redis(f"redis+sentinel://{watched.place}")
    await store.create(new_record())
    await asyncio.to_thread(watched.fail_over)

    async def is_followed() -> bool:
        record = new_record()
        await store.create(record)
        with redis_client(watched.replica.port) as admin:
            return bool(admin.exists(f"{store._prefix}:s:{record.handle}"))

    async with asyncio.timeout(3.0):
        while not await eventually(is_followed):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.gen_test(timeout=90)
@pytest.mark.parametrize("way", ["ordered", "killed", "frozen"])
async def test_push_follows_the_primary(start_server: StartServer, open_redis: OpenRedis, way: str) -> None:
    """A process that only listens is told of the gap, and hears of what ends on the new primary."""
    watched = Watched(start_server, sentinels=1)
    listener, other = (
        open_redis(f"redis+sentinel://{watched.place}", timeout_s=0.6, prefix="test") for _ in range(2)
    )
    heard: list[Handle | None] = []
    listening = asyncio.ensure_future(collect(listener, heard))
    try:
        assert await announced(other, heard)
        heard.clear()

        if way == "ordered":
            await asyncio.to_thread(watched.fail_over)
        else:
            (watched.primary.kill if way == "killed" else watched.primary.pause)()
            await asyncio.to_thread(watched.wait_until_replaced)
        await until(lambda: None in heard)
        heard.clear()

        assert await announced(open_redis(f"redis+sentinel://{watched.place}", prefix="test"), heard)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.gen_test(timeout=90)
async def test_passwords_of_servers_and_sentinels(start_server: StartServer, open_redis: OpenRedis) -> None:
    """Each kind has its own; a wrong one is refused, whichever it is, and is not repeated."""
    watched = Watched(start_server, sentinels=1, password="server")
    with redis_client(watched.sentinels[0].port) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "on", "resetpass", ">sentinel")
    store = open_redis(f"redis+sentinel://:server@{watched.place}?sentinel_password=sentinel")
    record = new_record()

    await store.create(record)
    assert isinstance(await store.load(record.credential, now_ms=now()), Record)
    for url in (
        f"redis+sentinel://:hunter2@{watched.place}?sentinel_password=sentinel",
        f"redis+sentinel://:server@{watched.place}?sentinel_password=hunter2",
        f"redis+sentinel://:server@{watched.place}",
    ):
        with pytest.raises(StoreRefused) as caught:
            await open_redis(url).ping()
        assert "hunter2" not in str(caught.value)


@pytest.mark.gen_test(timeout=90)
async def test_silent_sentinel_and_unknown_service(start_server: StartServer, open_redis: OpenRedis) -> None:
    """A Sentinel that does not answer costs a part of one call; a service that none knows is an outage."""
    watched = Watched(start_server, sentinels=1)
    silent = start_server("sentinel")
    store = open_redis(f"redis+sentinel://127.0.0.1:{silent.port},{watched.place}")
    silent.pause()

    await store.create(new_record())
    with pytest.raises(StoreUnavailable):
        await open_redis(f"redis+sentinel://{watched.place}x").ping()

    silent.resume()
