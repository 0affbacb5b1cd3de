"""The operations that a database counts, and the size of its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from tests.support.backends import Server

STORES = {"memory": None, "redis": "redis8", "mongo": "mongo_rs"}
"""The server that each store needs, a key of `tests.support.backends.KINDS`."""
AND_SQLITE = [*STORES, "sqlite"]
"""For benchmarks that compare no peers: none of them has sessions in SQLite."""
_REDIS_OWN = frozenset({"info", "command", "hello", "client|setinfo", "ping", "select", "config|resetstat"})
_MONGO_WRITES = frozenset({"insert", "update", "delete", "findAndModify"})
_MONGO_COUNTED = _MONGO_WRITES | {"find", "aggregate", "getMore", "count", "distinct", "bulkWrite"}


@contextmanager
def backend(store: str) -> Iterator[str]:
    """Run the server that *store* needs, if any; yield the URL of the store."""
    if store == "sqlite":
        with TemporaryDirectory(prefix="stormcellar-") as directory:
            yield f"sqlite:{directory}/sessions.db"
        return
    kind = STORES[store]
    if kind is None:
        yield store
        return
    with Server(kind) as server:
        yield server.backend.url


class Database(Protocol):
    """A server that stores sessions."""

    def counts(self) -> Counter[str]:
        """Return the number of calls of each operation since the server started."""
        ...

    def is_write(self, operation: str) -> bool:
        """Whether *operation* changes what is stored."""
        ...

    def used_bytes(self) -> int:
        """Return the memory that the data uses; for MongoDB the size of the data."""
        ...


class RedisDatabase:
    """Redis; `INFO commandstats` counts a script and also each command that the script calls."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._writes = {
            name.lower() for name, command in client.command().items() if "write" in command["flags"]
        }

    def counts(self) -> Counter[str]:
        """Return the calls of each command, without those that these methods send."""
        stats = self.client.info("commandstats")
        named = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
        return Counter({name: calls for name, calls in named.items() if name not in _REDIS_OWN})

    def is_write(self, operation: str) -> bool:
        """Whether Redis flags *operation* as a write. A script is not flagged; its commands are."""
        return operation.partition("|")[0] in self._writes

    def used_bytes(self) -> int:
        """Return `used_memory`."""
        return int(self.client.info("memory")["used_memory"])


class MongoDatabase:
    """MongoDB; counts come from `metrics.commands` of `serverStatus`."""

    def __init__(self, client: Any, database: str) -> None:
        self.client = client
        self.database = database

    def counts(self) -> Counter[str]:
        """Return the calls of each command on data."""
        commands = self.client.admin.command("serverStatus")["metrics"]["commands"]
        return Counter({name: int(commands[name]["total"]) for name in _MONGO_COUNTED & commands.keys()})

    def is_write(self, operation: str) -> bool:
        """Whether *operation* changes documents."""
        return operation in _MONGO_WRITES

    def used_bytes(self) -> int:
        """Return the uncompressed size of data and indexes."""
        stats = self.client[self.database].command("dbStats")
        return int(stats["dataSize"] + stats["indexSize"])


def format_operations(counts: Mapping[str, float]) -> str:
    """Return operations as text: `hgetall 1, expire 0.05`."""
    return ", ".join(f"{name} {count:.3g}" for name, count in counts.items()) or "none"


@contextmanager
def connected_database(store: str, url: str) -> Iterator[Database | None]:
    """Connect to the database of *store*; yield None for memory, which has none."""
    if store == "redis":
        import redis

        with redis.Redis.from_url(url) as client:
            yield RedisDatabase(client)
    elif store == "mongo":
        import pymongo

        with pymongo.MongoClient[dict[str, Any]](url) as mongo:
            yield MongoDatabase(mongo, mongo.get_default_database().name)
    else:
        yield None
