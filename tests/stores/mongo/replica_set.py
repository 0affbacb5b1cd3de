"""A replica set of three members, and how long after an election a store is served again.

python -m tests.stores.mongo.replica_set --runs 5 --election-timeout 10
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple, Self

import pymongo
from pymongo.errors import PyMongoError

from stormcellar.stores import Credential, Record, StoreOptions, StoreUnavailable
from stormcellar.stores.conformance.cases import NOW, created
from stormcellar.stores.mongo import MongoStore
from tests.support.backends import Server

MEMBERS = 3
ELECTION_S = 60.0
# How often a caller comes, and how often the members are asked who is the primary.
EVERY_S = 0.05


class ReplicaSet:
    """Three members on loopback; a context manager.

    Args:
        election_timeout_s: How long the members wait for a primary before they elect another; MongoDB's
            default is 10.
    """

    def __init__(self, *, election_timeout_s: float) -> None:
        self._election_timeout_s = election_timeout_s
        self._stack = ExitStack()
        self.members: list[Server] = []

    def __enter__(self) -> Self:
        extra = ["--replSet", "rs0", "--oplogSize", "64"]
        self.members = [self._stack.enter_context(Server("mongo", extra=extra)) for _ in range(MEMBERS)]
        members = [{"_id": n, "host": f"127.0.0.1:{each.port}"} for n, each in enumerate(self.members)]
        settings = {"electionTimeoutMillis": int(self._election_timeout_s * 1000)}
        config = {"_id": "rs0", "members": members, "settings": settings}
        _command(self.members[0], "replSetInitiate", config)
        self.primary()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for member in self.members:
            # A member that is asked to stop first waits 15 s for its clients to leave.
            member.kill()
        self._stack.close()

    @property
    def url(self) -> str:
        """The URL of a store, with all members."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.members)
        return f"mongodb://{hosts}/stormcellar?replicaSet=rs0"

    def primary(self, *, but: Server | None = None) -> Server:
        """Wait for a primary other than *but*, and return it."""
        deadline = time.monotonic() + ELECTION_S
        while time.monotonic() < deadline:
            for member in self.members:
                if member is not but and _command(member, "hello").get("isWritablePrimary"):
                    return member
            time.sleep(EVERY_S)
        raise RuntimeError("no member became the primary")


class Failover(NamedTuple):
    """What a primary that hangs costs, in seconds after it stopped."""

    elected: float
    served: float

    @property
    def late(self) -> float:
        """How long after the election a call was answered."""
        return self.served - self.elected


async def fail_over(replicas: ReplicaSet) -> Failover:
    """Stop the primary while callers of a store come; continue it at the end."""
    store = MongoStore.from_url(replicas.url, StoreOptions(secrets.token_hex(6)))
    try:
        record = await _created(store)
        primary = await asyncio.to_thread(replicas.primary)
        begun = time.monotonic()
        primary.pause()
        served = asyncio.ensure_future(_served(store, record.credential))
        await asyncio.to_thread(lambda: replicas.primary(but=primary))
        elected = time.monotonic() - begun
        return Failover(elected, await served - begun)
    finally:
        for member in replicas.members:
            member.resume()
        await store.aclose()


async def _created(store: MongoStore) -> Record:
    """Insert a record as soon as the set takes one: a new one has its majority after a while."""
    async with asyncio.timeout(ELECTION_S):
        while True:
            with suppress(StoreUnavailable):
                return await created(store)


async def _served(store: MongoStore, credential: Credential) -> float:
    """Return when a call was answered first; a caller comes every `EVERY_S`."""
    calls: set[asyncio.Task[float]] = set()

    async def call() -> float:
        await store.load(credential, now_ms=NOW)
        return time.monotonic()

    while True:
        calls.add(asyncio.ensure_future(call()))
        done, calls = await asyncio.wait(calls, timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                await asyncio.gather(*calls, return_exceptions=True)
                return task.result()
            assert isinstance(task.exception(), StoreUnavailable)


def _command(member: Server, command: str, value: object = 1) -> dict[str, Any]:
    """Run a command on one member alone; return an empty dict if it does not answer."""
    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient(
        "127.0.0.1", member.port, directConnection=True, timeoutMS=500, serverSelectionTimeoutMS=500
    ) as client:
        try:
            return client.admin.command(command, value)
        except PyMongoError:
            return {}


def main() -> int:
    """Measure some failovers, each with a new store."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stores.mongo.replica_set", description=main.__doc__
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--election-timeout", type=float, default=10.0, metavar="SECONDS")
    arguments = parser.parse_args()
    with ReplicaSet(election_timeout_s=arguments.election_timeout) as replicas:
        for _ in range(arguments.runs):
            found = asyncio.run(fail_over(replicas))
            print(f"elected after {found.elected:.2f} s, served {found.late:.2f} s after that", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
