"""Faults of one MongoDB server that asks for a password."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from stormcellar.stores.conformance.faults import Network
from stormcellar.stores.mongo.client import collection_name
from stormcellar.stores.records import StoreOptions
from tests.faults.server.client_faults import CLIENT_FAULTS
from tests.faults.server.guests import add_guests, introduce
from tests.faults.set_ups.network_faults import LONG_S, NETWORK_FAULTS, SHORT_S
from tests.faults.site import PROGRAM, Site
from tests.faults.suite import Fault, Suite
from tests.support.backends import Server

FROZEN_S = 1.5
"""Shorter than the time-out of a store call."""
MOST_CONNECTIONS = 60
EXTRA = ("--auth", "--maxConns", str(MOST_CONNECTIONS), "--setParameter", "enableTestCommands=1")
ROOT, ROOT_PASSWORD = "root", "root-password"
USER, PASSWORD, ROLE = "app", "app-password", "readWrite"
DATABASE = "stormcellar"
SESSIONS = collection_name(StoreOptions().prefix)
READS = ("find",)
WRITES = ("insert", "update", "findAndModify")

Client = pymongo.MongoClient[dict[str, Any]]


class SingleMongo:
    """One server behind a network that can fail, and a site of two processes."""

    def __init__(self, server: Server, network: Network, site: Site, data: Path) -> None:
        self.data = data
        self.server = server
        self.network = network
        self.networks = [network]
        self.sites = [site]
        self.base = site.base

    @contextmanager
    def admin(self) -> Iterator[Client]:
        """A client of the server's administrator, which does not use the network that fails."""
        client: Client
        with pymongo.MongoClient(
            "127.0.0.1", self.server.port, username=ROOT, password=ROOT_PASSWORD
        ) as client:
            yield client


@asynccontextmanager
async def single_mongo(directory: Path, *, program: tuple[str, ...] = PROGRAM) -> AsyncIterator[SingleMongo]:
    """Start them; stop them at the end."""
    with ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, Server("mongo", extra=EXTRA))
        await asyncio.to_thread(_add_users, server)
        async with Network(server.port) as network:
            url = f"mongodb://{USER}:{PASSWORD}@127.0.0.1:{network.port}/{DATABASE}"
            site = Site(directory, url, "--processes", "2", program=program)
            stack.callback(site.close)
            add_guests(directory / "data")
            await asyncio.to_thread(site.start)
            await introduce(site.base)
            yield SingleMongo(server, network, site, directory / "data")


def _add_users(server: Server) -> None:
    client: Client
    with pymongo.MongoClient("127.0.0.1", server.port) as client:
        client.admin.command("createUser", ROOT, pwd=ROOT_PASSWORD, roles=["root"])
    with pymongo.MongoClient("127.0.0.1", server.port, username=ROOT, password=ROOT_PASSWORD) as client:
        client[DATABASE].command("createUser", USER, pwd=PASSWORD, roles=[ROLE])


async def _killed(mongo: SingleMongo) -> None:
    mongo.server.kill()
    await asyncio.sleep(1.0)
    await asyncio.to_thread(mongo.server.start)


async def _frozen(mongo: SingleMongo, seconds: float) -> None:
    await asyncio.to_thread(mongo.server.pause)
    await asyncio.sleep(seconds)
    mongo.server.resume()


async def _no_connections(mongo: SingleMongo) -> None:
    """Take every connection that the server has, ours included."""
    taken: list[asyncio.StreamWriter] = []
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        mongo.network.cut()
        # The server closes what exceeds its limit.
        for _ in range(MOST_CONNECTIONS):
            with suppress(OSError):
                taken.append((await asyncio.open_connection("127.0.0.1", mongo.server.port))[1])
        await asyncio.sleep(0.3)
    for writer in taken:
        writer.transport.abort()


async def _disk_full(mongo: SingleMongo) -> None:
    """Let no file grow: the server cannot write its journal and ends. Then there is space again."""
    resource.prlimit(mongo.server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    async with asyncio.timeout(30):
        await asyncio.to_thread(mongo.server.wait)
    await _killed(mongo)


@asynccontextmanager
async def _failing(mongo: SingleMongo, commands: tuple[str, ...], **how: Any) -> AsyncIterator[None]:
    """Let each of *commands* fail as *how* says."""

    def switch(mode: str) -> None:
        with mongo.admin() as admin:
            data = {"failCommands": [*commands], **how}
            admin.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)

    await asyncio.to_thread(switch, "alwaysOn")
    try:
        yield
    finally:
        await asyncio.to_thread(switch, "off")


async def _says_that_the_disk_is_full(mongo: SingleMongo) -> None:
    async with _failing(mongo, WRITES, errorCode=14031):
        await asyncio.sleep(SHORT_S)


async def _no_memory(mongo: SingleMongo) -> None:
    async with _failing(mongo, (*READS, *WRITES), errorCode=146):
        await asyncio.sleep(SHORT_S)


async def _done_and_reported_as_failed(mongo: SingleMongo) -> None:
    error = {"code": 64, "errmsg": "waiting for replication timed out"}
    async with _failing(mongo, WRITES, writeConcernError=error):
        await asyncio.sleep(SHORT_S)


async def _no_rights(mongo: SingleMongo) -> None:
    await asyncio.to_thread(_change_user, mongo, roles=[])
    await asyncio.sleep(SHORT_S)
    await asyncio.to_thread(_change_user, mongo, roles=[ROLE])


async def _other_password(mongo: SingleMongo) -> None:
    await asyncio.to_thread(_change_user, mongo, pwd="another-password")
    # An open connection stays signed in.
    mongo.network.cut()
    await asyncio.sleep(SHORT_S)
    await asyncio.to_thread(_change_user, mongo, pwd=PASSWORD)


def _change_user(mongo: SingleMongo, **what: Any) -> None:
    with mongo.admin() as admin:
        admin[DATABASE].command("updateUser", USER, **what)


async def _no_indexes(mongo: SingleMongo) -> None:
    """Drop the index that removes what has expired, and that of the users, until both are there again."""

    def drop() -> None:
        with mongo.admin() as admin:
            sessions = admin[DATABASE][SESSIONS]
            names = sessions.index_information().keys()
            assert len(names) > 1
            sessions.drop_indexes()
            end = time.monotonic() + LONG_S
            while sessions.index_information().keys() != names:
                assert time.monotonic() < end, "the indexes are not created anew"
                time.sleep(0.02)

    await asyncio.to_thread(drop)


async def _no_collection(mongo: SingleMongo) -> None:
    def drop() -> None:
        with mongo.admin() as admin:
            admin[DATABASE].drop_collection(SESSIONS)

    await asyncio.to_thread(drop)


async def _locked(mongo: SingleMongo) -> None:
    """Lock out every write, as a backup of files does."""

    def lock_for(seconds: float) -> None:
        with mongo.admin() as admin:
            admin.admin.command("fsync", lock=True)
            time.sleep(seconds)
            admin.admin.command("fsyncUnlock")

    await asyncio.to_thread(lock_for, LONG_S)


async def _while_slow(mongo: SingleMongo, kill: Callable[[Client], None]) -> None:
    """Kill what runs for us again and again, while each command takes long enough to be found."""

    def kill_all() -> None:
        with mongo.admin() as admin:
            end = time.monotonic() + SHORT_S
            while time.monotonic() < end:
                kill(admin)
                time.sleep(0.02)

    async with _failing(mongo, (*READS, *WRITES), blockConnection=True, blockTimeMS=100):
        await asyncio.to_thread(kill_all)


def _kill_operations(admin: Client) -> None:
    ours = {"effectiveUsers.user": USER, "active": True}
    for operation in admin.admin.aggregate([{"$currentOp": {"allUsers": True}}, {"$match": ours}]):
        with suppress(PyMongoError):
            admin.admin.command("killOp", op=operation["opid"])


def _kill_sessions(admin: Client) -> None:
    admin.admin.command("killAllSessions", [{"user": USER, "db": DATABASE}])


DROPPED = "Somebody dropped the collection, and all sessions with it: everybody signs in again."

MONGO = Suite(
    "MongoDB",
    single_mongo,
    (
        Fault("the server is killed and started again", _killed, in_smoke=True),
        Fault("the server is frozen for 4 s", lambda mongo: _frozen(mongo, LONG_S)),
        Fault("the server is frozen for 1.5 s", lambda mongo: _frozen(mongo, FROZEN_S)),
        *NETWORK_FAULTS,
        Fault("others take all connections of the server", _no_connections),
        Fault("the disk is full, and the server ends", _disk_full),
        Fault("the server refuses writes: the disk is full", _says_that_the_disk_is_full),
        Fault("the server refuses everything: it has no memory", _no_memory),
        Fault("writes are done and reported as failed", _done_and_reported_as_failed),
        Fault("the rights are revoked for 2 s", _no_rights),
        Fault("the password is changed for 2 s", _other_password),
        Fault("the indexes are dropped", _no_indexes),
        Fault(
            "the collection is dropped",
            _no_collection,
            excused={"signed out": DROPPED, "lost": DROPPED},
        ),
        Fault("writes are locked for 4 s", _locked),
        Fault("operations are killed for 2 s", lambda mongo: _while_slow(mongo, _kill_operations)),
        Fault("the driver's sessions are killed for 2 s", lambda mongo: _while_slow(mongo, _kill_sessions)),
        *CLIENT_FAULTS[:2],
    ),
)
