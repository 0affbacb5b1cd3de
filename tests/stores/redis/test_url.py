"""Redis URLs: what they mean, and that a bad one is told in one line without its password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis import asyncio as aioredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from stormcellar.stores import StoreOptions, open_store
from stormcellar.stores.conformance.cases import new_record
from stormcellar.stores.redis.url import connect
from tests.conftest import StartServer
from tests.stores.redis.samples import now

OPTIONS = StoreOptions()

BAD_URLS = [
    "redis:",
    "redis://",
    "redis:///0",
    "redis://:hunter2@/0",
    "redis://host:port/0",
    "redis://host:0/0",
    "redis://host:65536",
    "redis://host:70000/0",
    "redis://host/zero",
    "redis://host/-1",
    "redis://host/0/1",
    "redis://host/0?socket_timeout=60",
    "redis://host/0?ssl_ca_certs=/ca",
    "redis://host/?db=x",
    "redis://host,other/0",
    "redis://host/0#hunter2",
    "redis://:hunter2/x@host/0",
    "redis://:hunter2#x@host/0",
    "redis://:hunter2?x=1@host/0",
    "redis://:x?hunter2=1@host/0",
    "redis://host?hunter2@x",
    "redis://u:hunter2@[::1/0",
    "redis://u:hunter2@ho℀st/0",
    "redis://u:hunter2@host:x/0",
    "rediss://host/0?ssl_cert_reqs=none",
    "rediss://host/0?ssl_check_hostname=false",
    "redis+unix://",
    "redis+unix://host/run/redis.sock",
    "redis+unix:///run/redis.sock?db=x",
    "redis+cluster://",
    "redis+cluster://host/1",
    "redis+cluster://host?db=1",
    "redis+cluster://host?ssl=no",
    "redis+cluster://host,,other",
    "redis+sentinel://",
    "redis+sentinel://one,two",
    "redis+sentinel://one,two/",
    "redis+sentinel:///primary",
    "redis+sentinel://one/primary/hunter2",
    "redis+sentinel://one/primary/0/1",
    "redis+sentinel://one/primary?db=1",
    "redis+sentinel://one/primary?ssl=no",
    "redis+sentinel://one:0/primary",
    "redis://host/0?wait=",
    "redis://host/0?wait=-1",
    "redis://host/0?wait=10",
    "redis+cluster://host?wait=hunter2",
    "valkey://",
    "valkeys://host/0?ssl_cert_reqs=none",
    "unix://host/run/redis.sock",
    "valkey+cluster://host",
]


def pool_of(url: str) -> aioredis.ConnectionPool:
    """Return the connection pool of the client that *url* describes."""
    client = connect(url, OPTIONS)
    assert isinstance(client, aioredis.Redis)
    return client.connection_pool


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_is_one_line_without_its_password(url: str) -> None:
    """Whatever is wrong, the message is one line, and repeats nothing that could be a password."""
    with pytest.raises(ValueError) as caught:
        open_store(url)

    message = str(caught.value)
    assert message and "\n" not in message and "hunter2" not in message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("valkey://u:p@host:7000/3", "redis://u:p@host:7000/3"),
        ("valkeys://host/0?ssl_ca_certs=/ca", "rediss://host/0?ssl_ca_certs=/ca"),
        ("unix://:pw@/run/valkey.sock?db=2", "redis+unix://:pw@/run/valkey.sock?db=2"),
    ],
)
def test_other_names_mean_the_same(url: str, same: str) -> None:
    """`valkey://`, `valkeys://` and `unix://` connect as the names of Redis do."""
    one, other = pool_of(url), pool_of(same)

    names = ("host", "port", "path", "db", "username", "password", "ssl_cert_reqs", "ssl_ca_certs")
    assert one.connection_class is other.connection_class
    assert [one.connection_kwargs.get(name) for name in names] == [
        other.connection_kwargs.get(name) for name in names
    ]


def test_the_parts_of_a_url_reach_the_connection() -> None:
    """Host, port, database, user and password are those given, percent-decoded."""
    settings = pool_of("redis://al%40ice:p%2F%3A%23@[::1]:7000/3").connection_kwargs

    wanted = {"host": "::1", "port": 7000, "db": 3, "username": "al@ice", "password": "p/:#"}
    assert {name: settings[name] for name in wanted} == wanted


def test_a_password_needs_no_user() -> None:
    """`:password@` signs in as the default user."""
    settings = pool_of("redis://:secret@host").connection_kwargs

    assert (settings["username"], settings["password"], settings["port"]) == (None, "secret", 6379)


def test_tls_verifies_the_certificate_and_the_host_name() -> None:
    """`rediss://` cannot be talked out of verification, and takes an authority of its own."""  # G9
    pool = pool_of("rediss://host/0?ssl_ca_certs=/etc/ca.pem")

    settings = pool.connection_kwargs
    assert pool.connection_class is SSLConnection
    assert (settings["ssl_cert_reqs"], settings["ssl_check_hostname"]) == ("required", True)
    assert settings["ssl_ca_certs"] == "/etc/ca.pem"


def test_tls_in_a_cluster_verifies_too() -> None:
    """`?ssl=true` makes every node of a cluster a verified one."""
    client: Any = connect("redis+cluster://one:7000,two?ssl=true", OPTIONS)

    nodes = client.startup_nodes
    assert [(node.host, node.port) for node in nodes] == [("one", 7000), ("two", 6379)]
    assert {node.connection_class for node in nodes} == {SSLConnection}
    assert {node.connection_kwargs["ssl_cert_reqs"] for node in nodes} == {"required"}
    assert {node.connection_kwargs["ssl_check_hostname"] for node in nodes} == {True}


def test_the_parts_of_a_sentinel_url() -> None:
    """Servers and Sentinels have their own logins, and TLS is for both."""
    place = "one:7000,[::1]/my%20service/3"
    login = "sentinel_username=s&sentinel_password=s%2Fpw"
    pool: Any = pool_of(f"redis+sentinel://u:pw@{place}?ssl=true&ssl_ca_certs=/ca&{login}")

    asked = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    found = pool.connection_kwargs
    kinds = [each.connection_pool.connection_class for each in pool.sentinel_manager.sentinels]
    assert pool.service_name == "my service"
    assert [(each["host"], each["port"]) for each in asked] == [("one", 7000), ("::1", 26379)]
    assert {(each["username"], each["password"]) for each in asked} == {("s", "s/pw")}
    assert (found["username"], found["password"], found["db"]) == ("u", "pw", 3)
    assert issubclass(pool.connection_class, SSLConnection)
    assert kinds == [SSLConnection, SSLConnection]
    assert {each["ssl_cert_reqs"] for each in (found, *asked)} == {"required"}
    assert {each["ssl_ca_certs"] for each in (found, *asked)} == {"/ca"}


def test_silent_sentinels_fit_into_the_time_out() -> None:
    """However many are asked in turn, together they take at most half of it."""
    pool: Any = pool_of("redis+sentinel://a,b,c,d,e/primary")

    asked = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert [each["socket_connect_timeout"] for each in asked] == [0.2] * 5
    assert [each["socket_timeout"] for each in asked] == [0.2] * 5


@pytest.mark.parametrize(
    "url",
    ["redis://host", "rediss://host", "redis+unix:///s", "redis+sentinel://host/p", "redis+cluster://host"],
)
def test_the_driver_never_retries(url: str) -> None:
    """No client sends a command again by itself; that is for the store to decide."""
    client: Any = connect(url, OPTIONS)

    if isinstance(client, aioredis.RedisCluster):
        assert client.retry.get_retries() == 0
    else:
        assert client.connection_pool.make_connection().retry.get_retries() == 0


def test_a_socket_path_is_decoded() -> None:
    """The path of `redis+unix://` is that of the socket, the database comes as an option."""
    pool = pool_of("redis+unix://:pw@/run/a%20b.sock?db=2")

    assert pool.connection_class is UnixDomainSocketConnection
    assert (pool.connection_kwargs["path"], pool.connection_kwargs["db"]) == ("/run/a b.sock", 2)


@pytest.mark.gen_test
async def test_sessions_over_a_unix_socket(start_server: StartServer, tmp_path: Path) -> None:
    """A store on a socket works like one on a port."""
    path = tmp_path / "redis.sock"
    start_server("redis8", extra=["--unixsocket", str(path)])
    store = open_store(f"redis+unix://{path}?db=1")
    record = new_record()

    await store.ping()
    await store.create(record)
    loaded = await store.load(record.credential, now_ms=now())
    await store.aclose()

    assert loaded == record
