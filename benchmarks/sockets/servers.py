"""The stores and the server processes of `make bench-live`."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.harness.server_under_test import ServerUnderTest, start_server
from tests.support.backends import Server, free_port
from tests.support.cluster import client_of

SLOTS = 16_384
_FORM_S = 30.0


@dataclass(frozen=True, slots=True)
class StoreKind:
    """A store, and how it is run."""

    backends: tuple[str, ...]
    """Keys of `tests.support.backends.KINDS`."""
    processes: int = 2
    """Server processes; the memory store belongs to one."""
    announces: bool = True
    """Whether it announces what ends, so that there is a push."""


STORES = {
    "memory": StoreKind((), processes=1),
    "redis": StoreKind(("redis8",)),
    "cluster": StoreKind(("redis_cluster",) * 3),
    "replica-set": StoreKind(("mongo_rs",)),
    "standalone": StoreKind(("mongo",), announces=False),
}


@contextmanager
def running_store(name: str) -> Iterator[str]:
    """Run the servers of a store; yield its URL."""
    with ExitStack() as stack:
        started = [stack.enter_context(Server(kind)) for kind in STORES[name].backends]
        if len(started) > 1:
            _form_cluster(started)
        yield started[0].url if started else "memory"


def _form_cluster(servers: Sequence[Server]) -> None:
    """Make one cluster of *servers*, each with its part of the slots."""
    clients = [client_of(server) for server in servers]
    for number, client in enumerate(clients):
        client.execute_command("CLUSTER FLUSHSLOTS")
        client.execute_command("CLUSTER RESET", "HARD")
        client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        first, end = (SLOTS * each // len(servers) for each in (number, number + 1))
        client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
    for server, client in zip(servers[1:], clients[1:], strict=True):
        bus = client.config_get("cluster-port")["cluster-port"]
        clients[0].execute_command("CLUSTER MEET", "127.0.0.1", server.port, bus)
    until_s = time.monotonic() + _FORM_S
    while not all(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok" for client in clients):
        if time.monotonic() > until_s:
            raise RuntimeError("the nodes do not form a cluster")
        time.sleep(0.05)
    for client in clients:
        client.close()


@contextmanager
def running_apps(store: str, url: str, count: int, *more: str, key: bytes) -> Iterator[list[ServerUnderTest]]:
    """Run *count* processes of the application on one store, with the options *more*."""
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            port = free_port()
            options = (f"--store={url}", f"--port={port}", f"--key={key.hex()}", *more)
            command = [sys.executable, "-m", "benchmarks.sockets.app", *options]
            started.append(stack.enter_context(start_server("the application", store, command, port=port)))
        yield started


def new_key() -> bytes:
    """Return a signing key that the processes of a run share."""
    return os.urandom(32)


def allow_connections() -> int:
    """Raise the limit of open files of this process and its children to the hard limit; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
