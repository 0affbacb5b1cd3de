"""Redis clusters of several nodes, and slots that move, as `redis-cli --cluster reshard` moves them."""

from __future__ import annotations

import time
from typing import Any

import redis

from tests.support.backends import Server

CONVERGE_S = 20.0


def client_of(server: Server) -> Any:
    """Return a blocking client of this one node, for its own commands."""
    return redis.Redis(port=server.port, protocol=2)


def id_of(server: Server) -> str:
    """Return the name of the node in the cluster."""
    with client_of(server) as admin:
        return str(admin.execute_command("CLUSTER MYID").decode())


def join(servers: list[Server]) -> None:
    """Make one cluster of *servers*, each a cluster of its own so far: the first one keeps every slot."""
    first, *others = servers
    with client_of(first) as admin:
        for server in others:
            with client_of(server) as other:
                other.execute_command("CLUSTER FLUSHSLOTS")
                other.execute_command("CLUSTER RESET", "HARD")
                bus = other.config_get("cluster-port")["cluster-port"]
            admin.execute_command("CLUSTER MEET", "127.0.0.1", server.port, bus)
    _wait_for(servers, lambda info: info["cluster_known_nodes"] == str(len(servers)))
    _wait_for(servers, lambda info: info["cluster_state"] == "ok")


def add_replica(replica: Server, primary: Server) -> None:
    """Make *replica*, a cluster of its own so far, a replica of *primary*, and wait until it follows."""
    with client_of(primary) as admin, client_of(replica) as other:
        other.execute_command("CLUSTER FLUSHSLOTS")
        other.execute_command("CLUSTER RESET", "HARD")
        bus = other.config_get("cluster-port")["cluster-port"]
        admin.execute_command("CLUSTER MEET", "127.0.0.1", replica.port, bus)
        known, deadline = id_of(primary), time.monotonic() + CONVERGE_S
        while known not in (node["node_id"] for node in other.cluster("nodes").values()):
            assert time.monotonic() < deadline, "the nodes do not meet"
            time.sleep(0.05)
        other.execute_command("CLUSTER REPLICATE", known)
        while other.info("replication").get("master_link_status") != "up":
            assert time.monotonic() < deadline, "the replica does not follow"
            time.sleep(0.05)
        # Clients are told of a replica once the primary knows how far it is.
        while len(admin.execute_command("CLUSTER SLOTS")[0]) < 4:
            assert time.monotonic() < deadline, "the primary does not know its replica"
            time.sleep(0.05)


def slot_of(key: str) -> int:
    """Return the slot of *key*."""
    from redis.crc import key_slot

    return int(key_slot(key.encode()))


def begin_move(slot: int, source: Server, target: Server) -> None:
    """Let *source* send those who ask for a key of *slot* that it does not have to *target*."""
    with client_of(source) as old, client_of(target) as new:
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", id_of(source))
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", id_of(target))


def move_keys(slot: int, source: Server, target: Server) -> None:
    """Move the keys of *slot*, a few at a time."""
    with client_of(source) as old:
        while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
            old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)


def end_move(slot: int, source: Server, target: Server) -> None:
    """Make *target* the owner of *slot*."""
    owner = id_of(target)
    for server in (target, source):
        with client_of(server) as admin:
            admin.execute_command("CLUSTER SETSLOT", slot, "NODE", owner)


def _wait_for(servers: list[Server], holds: Any) -> None:
    deadline = time.monotonic() + CONVERGE_S
    for server in servers:
        with client_of(server) as admin:
            while not holds(_info(admin)):
                assert time.monotonic() < deadline, "the nodes do not form a cluster"
                time.sleep(0.05)


def _info(admin: Any) -> dict[str, str]:
    text = admin.execute_command("CLUSTER INFO")
    if isinstance(text, dict):
        return {str(name): str(value) for name, value in text.items()}
    return dict(line.split(":", 1) for line in text.decode().split())
