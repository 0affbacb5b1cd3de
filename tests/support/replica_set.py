"""A replica set of three MongoDB members, and what is done to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self, TypeVar

import pymongo
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from tests.support.backends import Server

T = TypeVar("T")
MEMBERS = 3
WAIT_S = 60.0
"""How long an election, or the return of a member, may take."""
EVERY_S = 0.05
EXTRA = (
    *("--replSet", "rs0", "--oplogSize", "64"),
    # A member that is asked to stop waits so long for its clients to leave; 15 s by default.
    *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=500"),
    # A member that gets no more of the log waits so much longer before it follows another; 5 s by default.
    *("--setParameter", "oplogNetworkTimeoutBufferSeconds=1"),
)


class ReplicaSet:
    """Three members on loopback; a context manager.

    Args:
        election_timeout_s: How long the members wait for a primary before they elect another; MongoDB's
            default is 10.
    """

    def __init__(self, *, election_timeout_s: float) -> None:
        self._election_timeout_s = election_timeout_s
        self._stack = ExitStack()
        self.members = [Server("mongo", extra=EXTRA) for _ in range(MEMBERS)]
        self.ports = [member.port for member in self.members]
        """Where clients and the other members find each member; other ports may be set before the start."""

    def __enter__(self) -> Self:
        for member in self.members:
            self._stack.enter_context(member)
        members = [{"_id": n, "host": f"127.0.0.1:{port}"} for n, port in enumerate(self.ports)]
        settings = {"electionTimeoutMillis": int(self._election_timeout_s * 1000)}
        config = {"_id": "rs0", "members": members, "settings": settings}
        command(self.members[0], "replSetInitiate", config)
        self.primary()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for member in self.members:
            member.kill()
        self._stack.close()

    @property
    def url(self) -> str:
        """The URL of a store, with all members."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"mongodb://{hosts}/stormcellar?replicaSet=rs0"

    def primary(self, *, but: Server | None = None) -> Server:
        """Wait for a primary other than *but*, and return it."""
        return self._wait(lambda: self._find(but), "no member became the primary")

    def writable(self, *, but: Server | None = None) -> Server:
        """Wait for a primary other than *but* whose writes reach a majority, and return it."""

        def found() -> Server | None:
            member = self._find(but)
            return member if member is not None and _writes(member) else None

        return self._wait(found, "no primary has a majority")

    def wait_until_whole(self) -> None:
        """Wait until every member is the primary or follows it."""

        def is_whole() -> bool:
            states = [command(member, "hello") for member in self.members]
            return all(each.get("isWritablePrimary") or each.get("secondary") for each in states)

        self._wait(lambda: is_whole() or None, "a member does not follow the primary")

    def _find(self, but: Server | None) -> Server | None:
        for member in self.members:
            if member is not but and command(member, "hello").get("isWritablePrimary"):
                return member
        return None

    def _wait(self, found: Callable[[], T | None], problem: str) -> T:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if (result := found()) is not None:
                return result
            time.sleep(EVERY_S)
        raise RuntimeError(problem)


def command(member: Server, name: str, value: Any = 1, **more: Any) -> dict[str, Any]:
    """Run a command on one member alone; return an empty dict if it does not answer."""
    with _client(member) as client:
        try:
            return client.admin.command(name, value, **more)
        except PyMongoError:
            return {}


def _writes(member: Server) -> bool:
    with _client(member) as client:
        majority = WriteConcern("majority", wtimeout=400)
        try:
            client.probe.get_collection("probe", write_concern=majority).insert_one({})
        except PyMongoError:
            return False
    return True


def _client(member: Server) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(
        "127.0.0.1", member.port, directConnection=True, timeoutMS=500, serverSelectionTimeoutMS=500
    )
