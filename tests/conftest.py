"""Fixtures that every folder uses: real backends, each started when a test first asks for it, and sites."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NoReturn, Protocol

import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import Store
from stormcellar.stores.memory import MemoryStore
from tests.support.backends import KINDS, Backend, BackendMissing, Server
from tests.support.site import OpenSite, Site

NEED_SERVER = frozenset({*KINDS, "start_server", "chromium", "world"})
"""The fixtures that start a server or a browser."""

LIMIT = pytest.StashKey[Any]()
"""How long a test may take: the settings of pytest-timeout."""


class StartServer(Protocol):
    def __call__(self, name: str, *, extra: Sequence[str] = ()) -> Server:
        """Start a server of the kind *name*, a key of `KINDS`."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the fuzz test run for longer, or differently, and leave out tests that need a server."""
    parser.addoption("--fuzz-examples", type=int, default=10_000, help="requests of the fuzz test (10000)")
    parser.addoption("--fuzz-seed", default="0", help="a number or `random` (0: always the same requests)")
    parser.addoption("--race-rounds", type=int, default=50, help="rounds of each race of requests (50)")
    parser.addoption("--no-databases", action="store_true", help="leave out Redis, MongoDB and Chromium")


def pytest_configure(config: pytest.Config) -> None:
    """Let a SIGTERM end the run in order, servers included, and give slow machines time."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell script has its background jobs ignore SIGINT, and so would every program that a test starts and
    # interrupts. A handler goes no further than this process, which goes on as before.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)
    # Or the first make_current() of pytest-tornado has asyncio make a loop that nobody closes.
    asyncio.set_event_loop(None)
    # pytest-tornado's default, 5 s, is shorter than a garbage-collecting pause of a busy two-core machine.
    if "ASYNC_TEST_TIMEOUT" not in os.environ and config.option.async_test_timeout == 5:
        config.option.async_test_timeout = 30.0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --no-databases, deselect the tests that need a server."""
    if config.getoption("--no-databases"):
        config.hook.pytest_deselected(items=[item for item in items if _needs_server(item)])
        items[:] = [item for item in items if not _needs_server(item)]


def _needs_server(item: pytest.Item) -> bool:
    """Whether *item* is marked so, or uses a fixture that starts a server, or has the name of one."""
    assert isinstance(item, pytest.Function)
    if item.get_closest_marker("needs_server"):
        return True
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(name in NEED_SERVER for name in (*item.fixturenames, *parameters) if isinstance(name, str))


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Generator[None, object, object]:
    """Repeat the failure of a test that goes on after its limit: a task or a property test may catch one."""
    item.stash[LIMIT] = settings
    result = yield
    if settings.method == "signal":
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, settings.timeout)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Give the end of a test the same limit again: a failure before it cancels the first."""
    if LIMIT in item.stash:
        item.config.hook.pytest_timeout_set_timer(item=item, settings=item.stash[LIMIT])
    return (yield)


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Start a server that belongs to this test alone, which may stop, kill, pause and restart it."""
    with ExitStack() as stack:

        def start(name: str, *, extra: Sequence[str] = ()) -> Server:
            try:
                return stack.enter_context(Server(name, extra=extra))
            except BackendMissing as exc:
                _missing(name, exc)

        yield start


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """A file of SQLite, which needs no server."""
    return Backend("sqlite", f"sqlite:{tmp_path_factory.mktemp('sqlite')}/sessions.db", 0, 0)


@pytest.fixture(scope="session")
def redis8() -> Iterator[Backend]:
    """Redis 8.2."""
    yield from _running("redis8")


@pytest.fixture(scope="session")
def redis6() -> Iterator[Backend]:
    """Redis 6.2, the oldest supported."""
    yield from _running("redis6")


@pytest.fixture(scope="session")
def valkey() -> Iterator[Backend]:
    """Valkey 8.1."""
    yield from _running("valkey")


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Backend]:
    """Redis 8.2 in cluster mode, one node with every slot."""
    yield from _running("redis_cluster")


@pytest.fixture(scope="session")
def sentinel() -> Iterator[Backend]:
    """A Sentinel of Redis 8.2 that watches nothing yet."""
    yield from _running("sentinel")


@pytest.fixture(scope="session")
def mongo() -> Iterator[Backend]:
    """MongoDB, standalone."""
    yield from _running("mongo")


@pytest.fixture(scope="session")
def mongo_rs() -> Iterator[Backend]:
    """MongoDB as a replica set of one node."""
    yield from _running("mongo_rs")


def _running(name: str) -> Iterator[Backend]:
    try:
        server = Server(name)
    except BackendMissing as exc:
        _missing(name, exc)
    with server:
        yield server.backend


def _missing(name: str, reason: BackendMissing) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{name} must run in CI: {reason}")
    pytest.skip(f"{name}: {reason}")


@pytest.fixture
def open_site(io_loop: IOLoop) -> Iterator[OpenSite]:
    """A function that starts a site; given no store, on one in memory. All are closed after the test."""
    sites: list[Site] = []

    def open_one(store: Store | None = None, **options: Any) -> Site:
        sites.append(Site(MemoryStore() if store is None else store, **options))
        return sites[-1]

    yield open_one
    for site in sites:
        io_loop.run_sync(site.close)


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    """A site on a store in memory."""
    return open_site()
