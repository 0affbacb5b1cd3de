"""The client of `MongoStore`: its URL, its options, and what it knows of its servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError
from pymongo.read_preferences import ReadPreference
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from stormcellar.stores.errors import TIME_OUT, StoreRefused, StoreUnavailable
from stormcellar.stores.mongo.calls import Calls
from stormcellar.stores.mongo.documents import CODEC, Document
from stormcellar.stores.mongo.errors import problem_of_servers
from stormcellar.stores.records import StoreOptions

DATABASE = "stormcellar"
SRV = "mongodb+srv:"
# How often the driver asks each member of a replica set how it is, on a connection of its own. In a failover
# it learns so late of the new primary.
HEARTBEAT_MS = 1000


def connect(url: str, options: StoreOptions) -> AsyncCollection[Document]:
    """Return the collection for *url* and the prefix, without any I/O; it connects on first use.

    The times, the mode of monitoring and `retryWrites` in *url* win over ours.

    Raises:
        ValueError: One line about a bad *url*, without any part of a password.
    """
    try:
        parts = parse_uri(_without_srv(url), warn=False)
        if parts["collection"] is not None:
            raise ValueError("the path must not name a collection; the store prefix determines it")
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            url, connect=False, retryReads=False, **_defaults(options, url, parts)
        )
        return client[parts["database"] or DATABASE].get_collection(
            collection_name(options.prefix),
            codec_options=CODEC,
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority"),
        )
    except (ValueError, OSError, PyMongoError) as exc:
        raise ValueError(f"bad MongoDB URL: {_reason(url, exc)}") from None


def _without_srv(url: str) -> str:
    """Return a URL with the same database and options whose hosts need no look-up in DNS.

    The client looks them up itself, on first use and within a time-out.
    """
    if not url.startswith(SRV):
        return url
    place, question, options = url.partition("?")
    kept = [each for each in options.split("&") if not each.lower().startswith("srv")]
    return place.replace("+srv", "", 1) + question + "&".join(kept)


def _defaults(options: StoreOptions, url: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return our own options, except those that *url* has: an argument would override them.

    Args:
        parts: The parsed URL.
    """
    chosen = parts["options"]
    has_members = url.startswith(SRV) or "replicaSet" in chosen or len(parts["nodelist"]) > 1
    connect_timeout_ms = int(options.connect_timeout_s * 1000)
    defaults = {
        "connectTimeoutMS": connect_timeout_ms,
        "serverSelectionTimeoutMS": connect_timeout_ms,
        "heartbeatFrequencyMS": HEARTBEAT_MS,
        # A failed login marks the server as unknown until the monitor's next check, and all calls wait for
        # it. With streaming that takes a heartbeat, with polling half a second.
        "serverMonitoringMode": "poll",
        # A standalone server does not recognise a write that is sent again. PyMongo notices that only with a
        # new connection, and then closes all connections because of the first error (mongo_client.py,
        # _check_last_error), once for each write that waited for a connection.
        "retryWrites": has_members,
    }
    return {name: value for name, value in defaults.items() if name not in chosen}


def _reason(url: str, exc: Exception) -> str:
    if "dnspython" in str(exc):
        return "mongodb+srv:// needs the package dnspython: pip install dnspython"
    if "@" in url or "password" in url.lower():
        return "it does not parse; percent-encode the user and the password, and check the options"
    return " ".join(str(exc).split())


def collection_name(prefix: str) -> str:
    """Return the collection name for *prefix*, different for each."""
    # MongoDB refuses a dot at either end, two in a row, and one after "system".
    return prefix.replace("%", "%25").replace(".", "%2E") + "_sessions"


@asynccontextmanager
async def diagnosing(client: AsyncMongoClient[Document], calls: Calls) -> AsyncIterator[None]:
    """Add to a failure without a reason what the driver knows of its servers; sign in again if refused."""

    async def sign_in_again() -> None:
        # A connection of a user who was dropped and created again has no rights. PyMongo has no public call.
        for server in client._topology._servers.values():
            await server.pool.reset_without_pause()

    try:
        yield
    except StoreRefused:
        calls.start(sign_in_again)
        raise
    except StoreUnavailable as exc:
        # What the server replied counts, and not what the driver knows of another member.
        if exc.problem in (None, TIME_OUT.problem):
            exc.problem = problem_of_servers(client.topology_description) or exc.problem
        raise
