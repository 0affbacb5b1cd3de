"""Faults of one Redis server whose persistence loses nothing."""

from __future__ import annotations

import asyncio
import resource
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from stormcellar.stores.conformance.faults import Network
from tests.faults.set_ups.network_faults import LONG_S, NETWORK_FAULTS, SHORT_S
from tests.faults.site import PROGRAM, Site, signed_in_guest
from tests.faults.suite import Fault, Suite
from tests.support.backends import Server
from tests.support.redis_orders import follow, info, order, until

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
ACCOUNT = ("--user", "site", "on", ">first", "~*", "&*", "+@all")
"""The site has an account of its own, so that a fault can change it."""
LOGIN = "site:first"


class SingleRedis:
    """One server behind a network that can fail, and a site of two processes."""

    def __init__(self, server: Server, network: Network, site: Site) -> None:
        self.server = server
        self.networks = [network]
        self.sites = [site]
        self.base = site.base


@asynccontextmanager
async def single_redis(directory: Path, *, program: tuple[str, ...] = PROGRAM) -> AsyncIterator[SingleRedis]:
    """Start them; stop them at the end."""
    options = (*DURABLE, *ACCOUNT, "--enable-debug-command", "local")
    with ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, Server("redis8", extra=options))
        async with Network(server.port) as network:
            url = f"redis://{LOGIN}@127.0.0.1:{network.port}/0"
            site = Site(directory, url, "--processes", "2", program=program)
            stack.callback(site.close)
            await asyncio.to_thread(site.start)
            yield SingleRedis(server, network, site)


class OneAddress:
    """A primary and a replica behind one address, as a managed Redis, and a site of two processes."""

    def __init__(self, primary: Server, replica: Server, network: Network, site: Site) -> None:
        self.primary = primary
        self.replica = replica
        self.network = network
        self.sites = [site]
        self.base = site.base

    async def lead_to_replica(self) -> None:
        """Exchange the two when the replica is the primary; connections that are open stay where they are."""
        await until(self._is_promoted)
        self.network.target_port = self.replica.port
        self.primary, self.replica = self.replica, self.primary

    async def _is_promoted(self) -> bool:
        return bool((await info(self.replica, "replication"))["role"] == "master")


@asynccontextmanager
async def one_address(directory: Path) -> AsyncIterator[OneAddress]:
    """Start them; stop them at the end."""
    options = (*DURABLE, *ACCOUNT, "--repl-diskless-sync-delay", "0")
    with ExitStack() as stack:
        primary, replica = (stack.enter_context(Server("redis8", extra=options)) for _ in range(2))
        await follow(replica, primary)
        async with Network(primary.port) as network:
            site = Site(directory, f"redis://{LOGIN}@127.0.0.1:{network.port}/0", "--processes", "2")
            stack.callback(site.close)
            await asyncio.to_thread(site.start)
            yield OneAddress(primary, replica, network, site)


async def _exchanged(redis: OneAddress) -> None:
    await order(redis.primary, "FAILOVER", "TO", "127.0.0.1", redis.replica.port)
    await redis.lead_to_replica()


async def _replaced(redis: OneAddress) -> None:
    redis.primary.kill()
    await asyncio.sleep(1.0)
    await order(redis.replica, "REPLICAOF", "NO", "ONE")
    await redis.lead_to_replica()


async def _replica_comes_back(redis: OneAddress) -> None:
    await asyncio.to_thread(redis.replica.start)
    await follow(redis.replica, redis.primary)


async def _killed(redis: SingleRedis) -> None:
    redis.server.kill()
    await asyncio.sleep(1.0)
    await asyncio.to_thread(redis.server.start)


async def _emptied(redis: SingleRedis) -> None:
    files = Path((await order(redis.server, "CONFIG GET", "dir"))["dir"])
    redis.server.kill()
    shutil.rmtree(files / "appendonlydir")
    await asyncio.to_thread(redis.server.start)


async def _frozen(redis: SingleRedis, duration_s: float) -> None:
    await asyncio.to_thread(redis.server.pause)
    await asyncio.sleep(duration_s)
    redis.server.resume()


async def _paused(redis: SingleRedis) -> None:
    await order(redis.server, "CLIENT PAUSE", 2500)
    await asyncio.sleep(2.5)


async def _busy(redis: SingleRedis) -> None:
    await order(redis.server, "CONFIG SET", "busy-reply-threshold", 100)
    script = asyncio.ensure_future(order(redis.server, "EVAL", "while true do end", 0))
    await asyncio.sleep(SHORT_S)
    await order(redis.server, "SCRIPT KILL")
    await asyncio.gather(script, return_exceptions=True)


async def _loading(redis: SingleRedis) -> None:
    keys: int = await order(redis.server, "DBSIZE")
    await order(redis.server, "CONFIG SET", "loading-process-events-interval-bytes", 1024)
    await order(redis.server, "CONFIG SET", "key-load-delay", int(SHORT_S * 1_000_000 / keys))
    await order(redis.server, "DEBUG", "RELOAD")


async def _no_scripts(redis: SingleRedis) -> None:
    await order(redis.server, "CONFIG RESETSTAT")
    for _ in range(20):
        await order(redis.server, "SCRIPT FLUSH")
        await asyncio.sleep(0.05)
    assert "errorstat_NOSCRIPT" in await info(redis.server, "errorstats")


async def sign_out_while_full(base: str, holder: Callable[[str], Awaitable[Server]]) -> None:
    """Leave a server no memory for a while; a session that it has must end all the same.

    Args:
        holder: Returns the server that has the session with this handle.
    """
    async with signed_in_guest(base) as guest:
        cookie = guest.session_cookie or ""
        listed = await guest.send("GET", "/account/sessions")
        [handle] = [each["handle"] for each in listed.body["sessions"] if each["current"]]
        server = await holder(handle)
        await order(server, "CONFIG SET", "maxmemory", 1)
        answer = await guest.send("POST", "/logout")
        assert answer.status == 204, answer
        assert not any(await guest.is_accepted(cookie))
        await asyncio.sleep(SHORT_S)
        await order(server, "CONFIG SET", "maxmemory", 0)


async def _memory_full(redis: SingleRedis) -> None:
    async def holder(_: str) -> Server:
        return redis.server

    await sign_out_while_full(redis.base, holder)


async def _disk_full(redis: SingleRedis) -> None:
    # With `always` Redis ends itself when it cannot write.
    await order(redis.server, "CONFIG SET", "appendfsync", "everysec")
    before = resource.prlimit(redis.server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    await asyncio.sleep(SHORT_S)
    resource.prlimit(redis.server.pid, resource.RLIMIT_FSIZE, before)

    async def writes() -> bool:
        return bool((await info(redis.server, "persistence"))["aof_last_write_status"] == "ok")

    await until(writes)
    await order(redis.server, "CONFIG SET", "appendfsync", "always")


async def _no_connections(redis: SingleRedis) -> None:
    others = [await asyncio.open_connection("127.0.0.1", redis.server.port) for _ in range(20)]
    await order(redis.server, "CONFIG SET", "maxclients", len(others))
    redis.networks[0].cut()
    await asyncio.sleep(SHORT_S)
    for _, writer in others:
        writer.close()
        await writer.wait_closed()
    await order(redis.server, "CONFIG SET", "maxclients", 10_000)


async def change_account(servers: list[Server], change: str, back: str) -> None:
    """Change the site's account on *servers*, close its connections, and change it back after a while."""
    for rules in (change, back):
        for server in servers:
            await order(server, "ACL SETUSER", "site", *rules.split())
            await order(server, "CLIENT KILL", "USER", "site")
        if rules == change:
            await asyncio.sleep(SHORT_S)


async def _no_rights(redis: SingleRedis) -> None:
    await change_account([redis.server], "-@all", "+@all")


async def _other_password(redis: SingleRedis) -> None:
    await change_account([redis.server], "resetpass >second", "resetpass >first")


EMPTY = "Without persistence Redis is empty after a restart: everybody is signed out, visitors' data is gone."
ASYNCHRONOUS = (
    "Redis replicates after it has answered. When a primary fails, what its replica had not received is "
    "undone: writes of data, sign-ins, and sign-outs. With `?wait=` for every replica in the store URL "
    "sign-ins and sign-outs are safe."
)
UNDONE = dict.fromkeys(("lost", "back", "signed out"), ASYNCHRONOUS)
DATA_UNDONE = {"lost": "Writes of session data do not wait for replicas, so a failover can undo them."}

REDIS = Suite(
    "Redis",
    single_redis,
    (
        Fault("the server is killed and started again", _killed, in_smoke=True),
        Fault("the server is frozen for 4 s", lambda redis: _frozen(redis, LONG_S)),
        Fault("the server is frozen for 1.5 s", lambda redis: _frozen(redis, 1.5)),
        Fault("all clients are paused for 2.5 s", _paused),
        Fault("a script is busy for 2 s", _busy),
        Fault("the server reloads its data for 2 s", _loading),
        Fault("the scripts are removed again and again", _no_scripts, is_seamless=True),
        Fault("the memory is full for 2 s", _memory_full),
        Fault("the disk is full for 2 s", _disk_full),
        Fault("others use up the connections for 2 s", _no_connections),
        Fault("the rights are revoked for 2 s", _no_rights),
        Fault("the password is another for 2 s", _other_password),
        *NETWORK_FAULTS,
        Fault("the server restarts without its data", _emptied, {"lost": EMPTY, "signed out": EMPTY}),
    ),
)

ONE_ADDRESS = Suite(
    "Redis behind one address",
    one_address,
    (
        Fault("the replica and the primary change places", _exchanged),
        Fault(
            "the primary dies, and its replica takes its place",
            _replaced,
            UNDONE,
            aftermath=_replica_comes_back,
        ),
    ),
)
