"""The contract holds under the least rights in MongoDB, and ping names each one that is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import StoreOptions, StoreRefused, StoreUnavailable
from stormcellar.stores.conformance import CountersContract, StoreContract
from stormcellar.stores.conformance.announcing import AnnouncingContract
from stormcellar.stores.conformance.opening import OpenedContract
from stormcellar.stores.mongo import MongoStore
from stormcellar.stores.mongo.client import collection_name
from tests.conftest import StartServer
from tests.stores.mongo.samples import failing, store_at
from tests.support.backends import Server
from tests.support.running import ROOT

pytestmark = pytest.mark.needs_server
PREFIX = "rights"
PAGE = (ROOT / "docs" / "operations.md").read_text()
LISTED = re.search(r"^const actions = (\[.+\])$", PAGE, re.MULTILINE)
assert LISTED is not None
LEAST: tuple[str, ...] = tuple(json.loads(LISTED[1]))
WITH_CREATION = (*LEAST, "createIndex", "collMod")
COLLECTIONS = (collection_name(PREFIX), f"{PREFIX}_counters")


class Accounts:
    """A server with access control, and accounts on it that have just the actions of a role."""

    def __init__(self, server: Server) -> None:
        self.place = f"127.0.0.1:{server.port}/stormcellar"
        client: pymongo.MongoClient[dict[str, Any]]
        with pymongo.MongoClient("127.0.0.1", server.port) as client:
            client.admin.command("createUser", "root", pwd="root-pw", roles=["root"])
        self._admin = pymongo.MongoClient[dict[str, Any]](
            "127.0.0.1", server.port, username="root", password="root-pw"
        )
        self.database = self._admin.stormcellar

    def url(self, name: str, actions: Iterable[str], collections: Iterable[str] = COLLECTIONS) -> str:
        """Make an account and return the URL that it uses."""
        privileges = [
            {"resource": {"db": "stormcellar", "collection": each}, "actions": list(actions)}
            for each in collections
        ]
        self.database.command("createRole", name, privileges=privileges, roles=[])
        self.database.command("createUser", name, pwd="pw", roles=[name])
        return f"mongodb://{name}:pw@{self.place}"

    def close(self) -> None:
        """Close the connection of the administrator."""
        self._admin.close()


def accounts_on(server: Server) -> Iterator[Accounts]:
    """Return the accounts of *server*, which are closed at the end."""
    accounts = Accounts(server)
    yield accounts
    accounts.close()


def key_file(folder: Path) -> tuple[str, ...]:
    """Return the arguments with which the members of a replica set trust each other, as --auth requires."""
    key = folder / "key"
    key.write_text("a" * 64)
    key.chmod(0o600)
    return "--auth", "--keyFile", str(key)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A standalone server with access control, for the tests of this module."""
    with Server("mongo", extra=["--auth"]) as running:
        yield running


@pytest.fixture(scope="module")
def replica_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    """The accounts of a replica set with access control."""
    with Server("mongo_rs", extra=key_file(tmp_path_factory.mktemp("replica-set"))) as running:
        yield from accounts_on(running)


@pytest.fixture(scope="module")
def accounts(server: Server) -> Iterator[Accounts]:
    """The accounts of the standalone server; the indexes exist."""
    yield from accounts_on(server)


@pytest.fixture(scope="module")
def creating(accounts: Accounts) -> str:
    """The URL of an account that may create indexes."""
    return accounts.url("creating", WITH_CREATION)


def least_on(accounts: Accounts, creating: str) -> str:
    """Return the URL of an account that may not create indexes, after *creating* has created them."""

    async def create() -> None:
        store = MongoStore.from_url(creating, StoreOptions(PREFIX))
        store.counters()
        await store.ping()
        await store.aclose()

    IOLoop(make_current=False).run_sync(create)
    return accounts.url("least", LEAST)


@pytest.fixture(scope="module")
def least(accounts: Accounts, creating: str) -> str:
    """The URL of such an account of the standalone server."""
    return least_on(accounts, creating)


@pytest.fixture(scope="module")
def least_of_the_set(replica_set: Accounts) -> str:
    """The URL of such an account of the replica set."""
    return least_on(replica_set, replica_set.url("creating", WITH_CREATION))


def opened(url: str, io_loop: IOLoop) -> Iterator[MongoStore]:
    """Return a store at *url*, with its tallies, that is closed at the end."""
    store = MongoStore.from_url(url, StoreOptions(PREFIX, timeout_s=10.0))
    store.counters()
    io_loop.run_sync(store.ping)
    yield store
    io_loop.run_sync(store.aclose)


class TestContractUnderTheLeastRights(StoreContract):
    """The whole contract, for an account that may neither create nor change an index."""

    announces = False

    @pytest.fixture
    def store(self, least: str, io_loop: IOLoop) -> Iterator[MongoStore]:
        """A store of that account."""
        yield from opened(least, io_loop)


class TestAnnouncingUnderTheLeastRights(AnnouncingContract, OpenedContract):
    """What only a replica set can do: announcements, which need the right `changeStream`."""

    @pytest.fixture
    def store(self, least_of_the_set: str, io_loop: IOLoop) -> Iterator[MongoStore]:
        """A store of that account."""
        yield from opened(least_of_the_set, io_loop)


class TestCountersUnderTheLeastRights(CountersContract):
    """Those of the account of the standalone server."""

    store = TestContractUnderTheLeastRights.store


@pytest.mark.gen_test
@pytest.mark.parametrize("lacking", [each for each in LEAST if each not in ("changeStream", "listIndexes")])
@pytest.mark.parametrize("collection", COLLECTIONS)
async def test_missing_action_is_named(
    accounts: Accounts, creating: str, lacking: str, collection: str
) -> None:  # G10
    """Ping names the action and the collection; nothing was inserted."""
    name = f"no-{lacking}-{collection}"
    other = next(each for each in COLLECTIONS if each != collection)
    url = accounts.url(name, [each for each in WITH_CREATION if each != lacking], [collection])
    accounts.database.command(
        "grantPrivilegesToRole",
        name,
        privileges=[{"resource": {"db": "stormcellar", "collection": other}, "actions": list(WITH_CREATION)}],
    )

    async with store_at(url, prefix=PREFIX) as store:
        store.counters()
        with pytest.raises(StoreRefused) as refused:
            await store.ping()

    assert refused.value.problem is not None
    assert (
        refused.value.problem.what
        == f"the MongoDB user may not run {lacking} on the collection {collection!r}"
    )
    assert accounts.database[collection].count_documents({"_id": ""}) == 0


@pytest.mark.gen_test
async def test_several_missing_actions_are_named_together(accounts: Accounts) -> None:
    """A user who may only read learns of all other actions at once."""
    async with store_at(accounts.url("reader", ["find"]), prefix=PREFIX) as store:
        with pytest.raises(StoreRefused, match="may not run insert, update, remove on the collection"):
            await store.ping()


@pytest.mark.gen_test
async def test_index_that_is_missing_and_may_not_be_created_is_named(accounts: Accounts) -> None:
    """Where the indexes do not exist, the right to create them is asked for."""
    url = accounts.url("uncreating", LEAST, [collection_name("fresh")])

    async with store_at(url, prefix="fresh") as store:
        with pytest.raises(StoreRefused) as refused:
            await store.ping()

    assert str(refused.value) == (
        "the index 'expires' of the collection 'fresh_sessions' is missing, and this user may not run "
        "createIndex; grant createIndex, or create the index as docs/operations.md shows"
    )


@pytest.mark.gen_test
async def test_indexes_that_may_not_be_read_are_named(accounts: Accounts) -> None:
    """Without createIndex, listIndexes is needed to see that they exist."""
    url = accounts.url("blind", [each for each in LEAST if each != "listIndexes"], [collection_name("blind")])

    async with store_at(url, prefix="blind") as store:
        with pytest.raises(StoreRefused, match="may not run listIndexes on the collection 'blind_sessions'"):
            await store.ping()


@pytest.mark.gen_test
async def test_missing_change_stream_is_named_on_a_replica_set(replica_set: Accounts) -> None:
    """Only a replica set has change streams, so only there the right is needed; then ping passes with it."""
    without = replica_set.url("silent", [each for each in WITH_CREATION if each != "changeStream"])
    everything = replica_set.url("whole", WITH_CREATION)

    async with store_at(without, prefix=PREFIX) as store:
        with pytest.raises(
            StoreRefused, match="may not run changeStream on the collection 'rights_sessions'"
        ):
            await store.ping()
    async with store_at(everything, prefix=PREFIX) as store:
        store.counters()
        await store.ping()
        await store.ping()


@pytest.mark.parametrize("command", ["find", "insert", "update", "delete"])
@pytest.mark.gen_test
async def test_failure_that_is_not_about_a_right_is_not_hidden(
    start_server: StartServer, command: str
) -> None:
    """Ping fails with what a visit would fail with; only a full server passes, which serves reads."""
    server = start_server("mongo", extra=["--setParameter", "enableTestCommands=1"])
    async with store_at(server.url) as store:
        with failing(server, command, errorCode=8), pytest.raises(StoreUnavailable):
            await store.ping()
        with failing(server, command, errorCode=14031):
            await store.ping()


@pytest.mark.gen_test
async def test_ping_leaves_nothing_behind(accounts: Accounts, creating: str) -> None:
    """Trying each right inserts, changes and removes no document, also where one has an odd `_id`."""
    collection = accounts.database[collection_name("kept")]
    collection.insert_one({"_id": "other", "user": "alice"})
    url = accounts.url("keeping", WITH_CREATION, [collection.name])

    async with store_at(url, prefix="kept") as store:
        await store.ping()

    assert list(collection.find({})) == [{"_id": "other", "user": "alice"}]
