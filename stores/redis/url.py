"""Parse the URL of a Redis store into a redis-py client that sends nothing twice."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis import asyncio as aioredis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from stormcellar.stores.records import StoreOptions
from stormcellar.stores.redis.connections import PrimaryPool

# Other names for the same; a URL in an error message has the name on the right.
_SAME = {"valkey": "redis", "valkeys": "rediss", "unix": "redis+unix"}
_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_OPTIONS = {
    "redis": frozenset({"db"}),
    "rediss": frozenset({"db"}) | _TLS_OPTIONS,
    "redis+unix": frozenset({"db"}),
    "redis+sentinel": frozenset({"ssl", "sentinel_username", "sentinel_password"}) | _TLS_OPTIONS,
    "redis+cluster": frozenset({"ssl"}) | _TLS_OPTIONS,
}

Driver = aioredis.Redis | aioredis.RedisCluster

# It has no type annotations.
_Sentinel: Any = Sentinel


def connect(url: str, options: StoreOptions) -> Driver:
    """Make the client that *url* describes, without any I/O.

    Raises:
        ValueError: One line. It repeats no part of the URL: a password with a reserved character in it can
            end up in any part.
    """
    parts, scheme = _split(url)
    login, _, place = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    settings: dict[str, Any] = {
        **_query(parts, scheme),
        "username": unquote(username) or None,
        "password": unquote(password) or None,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": options.connect_timeout_s,
        # Without a socket time-out redis-py makes no task for each write; RedisClient limits the time.
        "socket_timeout": None,
        # The reply to CLIENT SETINFO is ignored, and may be the only one: a server in protected mode refuses
        # the connection in its first line, and closes it.
        "driver_info": None,
        # RESP3 adds push messages and a longer handshake, and nothing here needs either.
        "protocol": 2,
    }
    if scheme == "redis+cluster":
        if parts.path not in ("", "/", "/0"):
            raise ValueError("a redis+cluster: URL takes no database number: a cluster has only database 0")
        return _cluster(_addresses(place), settings, options)
    if scheme == "redis+sentinel":
        return _primary(parts.path, _addresses(place, port=26379), settings, options)
    if scheme == "redis+unix":
        if place or not parts.path.strip("/"):
            raise ValueError(
                "a redis+unix: URL needs the path of a socket, as in redis+unix:///run/redis.sock"
            )
        return _single(UnixDomainSocketConnection, path=unquote(parts.path), **settings)
    if parts.path.strip("/"):
        settings["db"] = _number(unquote(parts.path.strip("/")), "the database in the path")
    [(host, port)] = _addresses(place, most=1)
    kind = SSLConnection if scheme == "rediss" else aioredis.Connection
    return _single(kind, host=host, port=port, **settings)


def replicas_of(url: str) -> int:
    """Return how many replicas must confirm that a session began, rotated or ended: `?wait=1`, or none."""
    text = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)).get("wait", "0")
    if not re.fullmatch(r"[0-9]", text):
        raise ValueError(
            "wait must be a number of replicas from 0 to 9, as in redis://localhost:6379/0?wait=1"
        )
    return int(text)


def _split(url: str) -> tuple[SplitResult, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the store URL cannot be parsed; percent-encode the user and the password") from None
    scheme = _SAME.get(parts.scheme, parts.scheme)
    if scheme not in _OPTIONS:
        known = ", ".join(f"{name}://" for name in (*_OPTIONS, *_SAME))
        raise ValueError(f"not a Redis URL: it must begin with one of {known}")
    if parts.fragment:
        raise ValueError("a '#' in a Redis URL must be percent-encoded")
    return parts, scheme


def _query(parts: SplitResult, scheme: str) -> dict[str, Any]:
    """Return the options after the `?`. There are few; certificates are always verified."""
    found: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := found.keys() - _OPTIONS[scheme] - {"wait"}:
        allowed = ", ".join(sorted(_OPTIONS[scheme] | {"wait"}))
        raise ValueError(f"{len(unknown)} unknown option(s) in the {scheme}: URL; it may contain {allowed}")
    if scheme == "rediss" or "ssl" in found:
        found |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    found.pop("wait", None)
    if "db" in found:
        found["db"] = _number(found["db"], "db")
    if found.get("ssl", "true") != "true":
        raise ValueError("ssl must be 'true'")
    return found


def _addresses(place: str, *, most: int = 64, port: int = 6379) -> list[tuple[str, int]]:
    """Return the hosts and ports in *place*, which are separated by commas."""
    found = []
    for address in place.split(","):
        matched = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/]+)(?::([0-9]{1,5}))?", address)
        if matched is None or not 0 < int(matched[2] or port) < 65536:
            raise ValueError("a Redis URL needs host or host:port, with a port from 1 to 65535")
        found.append((unquote(matched[1].strip("[]")), int(matched[2] or port)))
    if len(found) > most:
        raise ValueError("several hosts need redis+cluster:// or redis+sentinel://")
    return found


def _number(text: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise ValueError(
            f"{name} must be a number, as in redis://localhost:6379/0; percent-encode a `/` in a password"
        )
    return int(text)


def _single(kind: type[AbstractConnection], **settings: Any) -> aioredis.Redis:
    # Not a BlockingConnectionPool: a call cancelled while it returns a connection would never release it.
    return aioredis.Redis.from_pool(aioredis.ConnectionPool(connection_class=kind, **settings))


def _primary(
    path: str, addresses: list[tuple[str, int]], settings: dict[str, Any], options: StoreOptions
) -> aioredis.Redis:
    """Return a client of the primary that the Sentinels at *addresses* name at each connection."""
    service, _, db = path.strip("/").partition("/")
    if not service:
        raise ValueError(
            "a redis+sentinel: URL needs the name of the service, as in redis+sentinel://host1,host2/mymaster/0"
        )
    if db:
        settings["db"] = _number(unquote(db), "the database in the path")
    # The Sentinels are asked in turn, and all that are silent must fit into the time-out of a call.
    patience_s = min(options.connect_timeout_s, 0.5 * options.timeout_s / len(addresses))
    login = {name: settings.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    times = {"socket_timeout": patience_s, "socket_connect_timeout": patience_s}
    asked = {**settings, **login, **times, "db": 0}
    sentinel: Any = _Sentinel(addresses, sentinel_kwargs=asked, **settings)
    client: aioredis.Redis = sentinel.master_for(unquote(service), connection_pool_class=PrimaryPool)
    return client


def _cluster(
    addresses: list[tuple[str, int]], settings: dict[str, Any], options: StoreOptions
) -> aioredis.RedisCluster:
    # Only the driver's own time-out makes it refresh the owners of slots, so it must be shorter than ours.
    node_timeout_s = 0.4 * options.timeout_s
    settings["socket_timeout"] = node_timeout_s
    settings["socket_connect_timeout"] = min(options.connect_timeout_s, node_timeout_s)
    return aioredis.RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in addresses],
        max_connections=2**20,  # a node raises at its limit instead of waiting; Connections has the limit
        reinitialize_steps=0,  # after so many MOVED it would close connections that other calls are using
        **settings,
    )
