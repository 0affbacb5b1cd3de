"""The faults of Redis that are known, and the errors of redis-py in the terms of the contract."""

from __future__ import annotations

from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from stormcellar.stores.errors import (
    NETWORK,
    Fault,
    Problem,
    StoreError,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    fault_in,
)
from stormcellar.stores.redis.connections import TooFewReplicas


def _refused(sign: str, what: str, advice: str) -> Fault:
    return Fault(sign, StoreRefused, Problem(what, advice))


def _unavailable(sign: str, what: str, advice: str) -> Fault:
    return Fault(sign, StoreUnavailable, Problem(what, advice))


LACKS_RIGHT = Problem(
    "the Redis user lacks a right", "`doctor` names it; docs/operations.md lists all that are needed"
)

# A failure inside a script is a plain error with the reason in its text: since Redis 6.2 for lack of memory,
# in every version for lack of rights.
FAULTS = (
    Fault(
        r"OutOfMemoryError|OOM command not allowed",
        StoreFull,
        Problem("Redis has used all of its maxmemory", "raise maxmemory, or make room"),
    ),
    _refused(
        r"Authentication required|NOAUTH",
        "Redis requires a password, and the URL has none",
        "put it in the URL: redis://user:password@host/0",
    ),
    _refused(
        r"without any password configured",
        "the URL has a password, but Redis has none for its default user",
        "set requirepass in Redis, name another user in the URL, or take the password out of the URL",
    ),
    # redis-py has only the text of what Sentinels answered.
    _refused(
        r"MasterNotFoundError: .*Authentication",
        "a Sentinel refuses sentinel_username or sentinel_password",
        "correct them in the URL; the user and password before the @ are those of Redis",
    ),
    _unavailable(
        r"MasterNotFoundError: .* - ",
        "Sentinels in the URL cannot be reached, and no other one knows a primary",
        "check their hosts and ports, and the name of the service in the path",
    ),
    _unavailable(
        r"MasterNotFoundError",
        "the Sentinels know no primary of the service in the URL",
        "correct the name in the path, as in redis+sentinel://host/mymaster; `SENTINEL MASTERS` lists all",
    ),
    _refused(
        r"(?i)unknown (redis )?command.{0,4}sentinel",
        "a server in the URL is not a Sentinel",
        "use the port of the Sentinels, usually 26379, or begin the URL with redis://",
    ),
    _refused(
        r"AuthenticationError|AuthorizationError|WRONGPASS",
        "Redis does not accept the user and password",
        "correct them in the URL; percent-encode reserved characters; check that the user exists and is on",
    ),
    _refused(r"NoPermissionError|ACL failure in script|user executing the script can't|NOPERM", *LACKS_RIGHT),
    _refused(
        r"DENIED Redis|protected mode",
        "Redis is in protected mode: it serves only its own machine, because it has no password",
        "set a password in Redis, and put it in the URL",
    ),
    _refused(
        r"DB index is out of range",
        "Redis has no database with the number in the URL",
        "use a lower number, such as 0, or raise `databases` in its configuration",
    ),
    _refused(
        r"SELECT is not allowed in cluster mode|CROSSSLOT|CrossSlot|keys of two slots|same slot",
        "this Redis server is a node of a cluster",
        "begin the URL with redis+cluster:// and leave out the number of the database",
    ),
    _refused(
        r"cluster support disabled|Cluster mode is not enabled",
        "this Redis server is not a node of a cluster",
        "begin the URL with redis:// (rediss:// with TLS)",
    ),
    _refused(
        r"(?i)unknown (redis )?command",
        "the server does not have a command that sessions need",
        "use Redis 6.2 or later with its own command names; a Sentinel, or a proxy without Lua scripts, "
        "keeps no sessions",
    ),
    _unavailable(
        r"ReadOnlyError|READONLY|read only replica",
        "this Redis server is a replica, which is read-only",
        "use the address of the primary",
    ),
    _unavailable(r"BusyLoadingError|LOADING", "Redis is loading its data", "wait until it has finished"),
    _unavailable(
        r"MasterDownError|MASTERDOWN",
        "this Redis server is a replica that has lost its primary",
        "use the address of the primary",
    ),
    _unavailable(
        r"MISCONF", "Redis cannot write its data to the disk", "read its log, and make room on the disk"
    ),
    _unavailable(
        r"NOREPLICAS|Not enough good replicas",
        "Redis has fewer replicas than min-replicas-to-write",
        "start the replicas, or lower the setting",
    ),
    _unavailable(
        r"max number of clients",
        "Redis accepts no more connections",
        "raise maxclients, or close other connections",
    ),
    _unavailable(
        r"ClusterDownError|CLUSTERDOWN|SlotNotCovered",
        "the cluster does not serve all slots",
        "check it with: redis-cli --cluster check HOST:PORT",
    ),
    *NETWORK,
)


def store_error(operation: str, exc: BaseException) -> StoreError:
    """Return the error of the contract for the driver's *exc*.

    Its message has only the class of *exc*: a server's error text repeats arguments, those of AUTH included.
    """
    if isinstance(exc, TooFewReplicas):
        advice = "check the replicas, or ask for fewer with ?wait= in the URL"
        return StoreUnavailable(f"{operation}: {exc}", Problem(str(exc), advice))
    summary, fault = f"{operation}: {type(exc).__name__} from Redis", fault_in(exc, FAULTS)
    return StoreUnavailable(summary) if fault is None else fault.kind(summary, fault.problem)


def is_foreign(reply: object) -> bool:
    """Return whether *reply* is the error for a key that holds another type than ours."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def is_unavailable(reply: object) -> bool:
    """Return whether *reply* is an error after which a retry may succeed."""
    if not isinstance(reply, Exception) or isinstance(reply, NoScriptError) or is_foreign(reply):
        return False
    return type(store_error("", reply)) is StoreUnavailable


def checked(operation: str, reply: Any) -> Any:
    """Return *reply*, which may be the error for a key of another type; raise every other error."""
    if isinstance(reply, Exception) and not is_foreign(reply):
        raise store_error(operation, reply) from reply
    return reply
