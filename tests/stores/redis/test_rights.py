"""The contract holds under the least rights in Redis, and ping names each one that is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from tornado.ioloop import IOLoop

from stormcellar.stores import ReplicasMissing, StoreOptions, StoreRefused
from stormcellar.stores.conformance import CountersContract, StoreContract
from stormcellar.stores.redis import RedisStore
from tests.stores.redis.conftest import KINDS
from tests.stores.redis.samples import OpenRedis, full, redis_client
from tests.support.backends import Backend
from tests.support.running import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()
LISTED = re.search(r"ACL SETUSER stormcellar (.+) >PASSWORD (.+)", PAGE)
assert LISTED is not None
ACCOUNT, LEAST = LISTED[1].split(), LISTED[2].split()
OPTIONAL = "+info"
CLUSTER = re.findall(r"\+\w+", re.findall(r"On a cluster, on each node, add `([^`]+)`", PAGE)[0])


def rules(backend: Backend, prefix: str) -> list[str]:
    """Return the least rights that the page lists, for *prefix*."""
    listed = [*LEAST, *(CLUSTER if backend.name == "redis_cluster" else ())]
    return [rule.replace("stormcellar:", f"{prefix}:") for rule in listed]


def url_of(backend: Backend, admin: redis.Redis, name: str, *given: str) -> str:
    """Make an account with just the rights *given*, and return the URL that it uses."""
    command: Callable[..., Any] = admin.execute_command
    command("ACL", "SETUSER", name, *ACCOUNT, ">pw", *given)
    return backend.url.replace("//", f"//{name}:pw@")


class TestContractUnderTheLeastRights(StoreContract):
    """The whole contract, on each kind of Redis."""

    @pytest.fixture
    def store(
        self, each_redis: Backend, admin: redis.Redis, prefix: str, io_loop: IOLoop
    ) -> Iterator[RedisStore]:
        """A store of an account with the rights that the page lists."""
        url = url_of(each_redis, admin, "least", *rules(each_redis, prefix))
        opened = RedisStore.from_url(url, StoreOptions(prefix))
        io_loop.run_sync(opened.ping)
        yield opened
        io_loop.run_sync(opened.aclose)


class TestCountersUnderTheLeastRights(CountersContract):
    """Those of the same account."""

    store = TestContractUnderTheLeastRights.store


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lacking", [rule for rule in LEAST if rule != OPTIONAL])
async def test_missing_right_is_named(
    request: pytest.FixtureRequest, open_redis: OpenRedis, kind: str, lacking: str
) -> None:  # G10
    """Ping names the rule that is missing, and leaves no key behind."""
    backend: Backend = request.getfixturevalue(kind)
    with redis_client(backend.port) as admin:
        store = open_redis(backend.url)
        given = rules(backend, store._prefix)
        expected = lacking.replace("stormcellar:", f"{store._prefix}:")
        given.remove(expected)
        url = url_of(backend, admin, "lacking", *given)
        lacking_store = RedisStore.from_url(url, StoreOptions(store._prefix))
        with pytest.raises(StoreRefused) as refused:
            await lacking_store.ping()
        await lacking_store.aclose()
        left = [*admin.scan_iter(f"{store._prefix}:*")]

    assert refused.value.problem is not None
    assert refused.value.problem.what == f"the Redis user lacks a right: {expected}"
    assert left == []


@pytest.mark.gen_test
async def test_right_that_is_optional_is_not_required(
    each_redis: Backend, admin: redis.Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without `+info` ping passes, warns of what that costs, and the clock of the server is not known."""
    seen = []
    for given in (rules(each_redis, prefix), [r for r in rules(each_redis, prefix) if r != OPTIONAL]):
        caplog.clear()
        store = RedisStore.from_url(url_of(each_redis, admin, "some", *given), StoreOptions(prefix))
        await store.ping()
        seen.append("the right +info" in caplog.text)
        await store.aclose()

    assert seen == [False, True]


@pytest.mark.parametrize(
    ("kind", "option", "lacking"),
    [
        ("redis_cluster", "", "+asking"),
        ("redis_cluster", "", "+command"),
        ("redis8", "?wait=1", "+wait"),
        ("redis6", "?wait=1", "+wait"),
        ("redis8", "/1", "+select"),
        ("redis6", "/1", "+select"),
    ],
)
@pytest.mark.gen_test
async def test_right_that_one_set_up_needs_is_named(
    request: pytest.FixtureRequest, prefix: str, kind: str, option: str, lacking: str
) -> None:
    """A cluster, the option `wait` and another database need more, and ping says so."""
    backend: Backend = request.getfixturevalue(kind)
    with redis_client(backend.port) as admin:
        given = [rule for rule in rules(backend, prefix) if rule != lacking]
        url = url_of(backend, admin, "special", *given)
    store = RedisStore.from_url(url.removesuffix("/0") + option, StoreOptions(prefix))

    with pytest.raises(StoreRefused, match=rf"lacks a right: \{lacking}; grant"):
        await store.ping()
    await store.aclose()


@pytest.mark.gen_test
async def test_replicas_that_are_missing_are_no_matter_of_rights(
    redis8: Backend, open_redis: OpenRedis
) -> None:
    """Reads work, so this is an error of its own."""
    with pytest.raises(ReplicasMissing, match=r"0 of the 1 replicas that \?wait= asks for"):
        await open_redis(f"{redis8.url}?wait=1").ping()


@pytest.mark.gen_test
async def test_right_counts_before_replicas_that_are_missing(
    each_redis: Backend, admin: redis.Redis, prefix: str
) -> None:
    """Whoever sees that error may conclude that nothing else is wrong."""
    given = [*(rule for rule in rules(each_redis, prefix) if rule != "+scan"), "+wait"]
    store = RedisStore.from_url(
        f"{url_of(each_redis, admin, 'unscanned', *given)}?wait=1", StoreOptions(prefix)
    )

    with pytest.raises(StoreRefused, match=r"lacks a right: \+scan"):
        await store.ping()
    await store.aclose()


@pytest.mark.gen_test
async def test_several_missing_rights_are_named_together(
    each_redis: Backend, admin: redis.Redis, prefix: str
) -> None:
    """One message has all that is missing, as it goes into ACL SETUSER."""
    given = [each for each in rules(each_redis, prefix) if each not in ("+zscan", "+hdel", "+hgetall")]
    store = RedisStore.from_url(url_of(each_redis, admin, "few", *given), StoreOptions(prefix))

    with pytest.raises(StoreRefused, match=r"lacks a right: \+hdel \+zscan \+hgetall; grant"):
        await store.ping()
    await store.aclose()


@pytest.mark.gen_test
async def test_ping_leaves_nothing_behind_and_disturbs_nobody(
    store: RedisStore, admin: redis.Redis, prefix: str
) -> None:
    """No key stays, and what is published to listeners is no handle."""
    pubsub = admin.pubsub()
    pubsub.subscribe(f"{prefix}:gone")
    pubsub.get_message(timeout=5)
    await store.ping()
    message = pubsub.get_message(timeout=5)
    pubsub.close()

    assert message is not None and message["data"] == b"?"
    assert [*admin.scan_iter(f"{prefix}:*")] == []


@pytest.mark.gen_test
async def test_ping_passes_on_a_full_server(each_redis: Backend, store: RedisStore) -> None:
    """Reading and signing out work there, so the server is ready; rights are not what is missing."""
    with full(each_redis):
        await store.ping()


@pytest.mark.gen_test
async def test_node_of_a_cluster_is_found_behind_a_url_for_one_server(
    redis_cluster: Backend, open_redis: OpenRedis
) -> None:
    """Reads would work there, and each sign-in would fail."""
    with pytest.raises(StoreRefused) as refused:
        await open_redis(f"redis://127.0.0.1:{redis_cluster.port}").ping()

    assert refused.value.problem is not None
    assert refused.value.problem.what == "this Redis server is a node of a cluster"
