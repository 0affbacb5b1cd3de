"""The client of `MongoStore`: its URL and its options."""

from __future__ import annotations

from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError
from pymongo.read_preferences import ReadPreference
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from stormcellar.stores.mongo.documents import CODEC, Document
from stormcellar.stores.records import StoreOptions

DATABASE = "stormcellar"


def connect(url: str, options: StoreOptions) -> AsyncCollection[Document]:
    """Return the collection for *url* and the prefix, without any I/O; it connects on first use.

    Raises:
        ValueError: One line about a bad *url*, without any part of a password.
    """
    try:
        parts = parse_uri(url, warn=False)
        if parts["collection"] is not None:
            raise ValueError("the path must not name a collection; the store prefix determines it")
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            url,
            connect=False,
            connectTimeoutMS=int(options.connect_timeout_s * 1000),
            serverSelectionTimeoutMS=int(options.connect_timeout_s * 1000),
            retryReads=False,
            retryWrites=True,
            # A failed login marks the server as unknown until the monitor's next check, and all calls wait
            # for it. With streaming that takes up to ten seconds, with polling half a second.
            serverMonitoringMode="poll",
        )
        return client[parts["database"] or DATABASE].get_collection(
            collection_name(options.prefix),
            codec_options=CODEC,
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority"),
        )
    except (ValueError, OSError, PyMongoError) as exc:
        raise ValueError(f"bad MongoDB URL: {_reason(url, exc)}") from None


def _reason(url: str, exc: Exception) -> str:
    if "@" in url or "password" in url.lower():
        return "it does not parse; percent-encode the user and the password, and check the options"
    return " ".join(str(exc).split())


def collection_name(prefix: str) -> str:
    """Return the collection name for *prefix*, different for each."""
    # MongoDB refuses a dot at either end, two in a row, and one after "system".
    return prefix.replace("%", "%25").replace(".", "%2E") + "_sessions"
