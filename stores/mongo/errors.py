"""The faults of MongoDB that are known, and the errors of PyMongo in the terms of the contract."""

from __future__ import annotations

from bson.errors import InvalidDocument
from pymongo.errors import DuplicateKeyError, OperationFailure
from pymongo.topology_description import TopologyDescription

from stormcellar.stores.errors import (
    NETWORK,
    DuplicateSession,
    Fault,
    Problem,
    StoreFull,
    StoreRefused,
    StoreUnavailable,
    fault_in,
)

# https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
FULL = {14031: "OutOfDiskSpace"}
TOO_LARGE = {10334: "BSONObjectTooLarge", 17419: "after an update", 17420: "to insert"}
UNAUTHORIZED, AUTHENTICATION_FAILED = 13, 18
ATLAS_ERROR = 8000
NO_LOGIN = Problem(
    "MongoDB requires a user and a password, and the URL has none",
    "put them in the URL: mongodb://user:password@host/database",
)
REFUSED = {
    UNAUTHORIZED: Problem(
        "the MongoDB user lacks a right", "`doctor` names it; docs/operations.md lists all that are needed"
    ),
    AUTHENTICATION_FAILED: Problem(
        "MongoDB does not accept the user and password",
        "correct them in the URL; percent-encode reserved characters; name the database of the user as "
        "authSource, such as ?authSource=admin",
    ),
    73: Problem("MongoDB refuses the name of the collection", "change the database or the store prefix"),
    ATLAS_ERROR: Problem(
        "Atlas refuses access", "check the user and password in the URL, and the user's rights"
    ),
}
INDEX_CONFLICT = Problem(
    "another index is in the place of one of ours", "`doctor` names it; drop it, and it is created anew"
)
NO_MEMBER = Problem(
    "no server at the address belongs to the replica set in the URL",
    "correct replicaSet, or leave it out for a standalone server",
)
NO_PRIMARY = Problem(
    "the replica set has no primary", "wait for its election; `rs.status()` in mongosh shows its members"
)
REFUSED |= {85: INDEX_CONFLICT, 86: INDEX_CONFLICT}


def _fault(kind: type[StoreUnavailable], sign: str, what: str, advice: str) -> Fault:
    return Fault(sign, kind, Problem(what, advice))


FAULTS = (
    _fault(
        StoreUnavailable,
        r"ConfigurationError[^\n]*\n(NXDOMAIN|NoAnswer|NoNameservers|\w*Timeout|NoResolver\w*): ",
        "DNS gives no servers for the name in a mongodb+srv:// URL",
        "check the name and DNS, for instance with: dig SRV _mongodb._tcp.NAME; or list the servers after "
        "mongodb://",
    ),
    _fault(
        StoreRefused,
        r"wire version|requires at least",
        "this version of MongoDB is too old for the driver",
        "use MongoDB 6.0 or later",
    ),
    _fault(
        StoreRefused,
        r"ConfigurationError|InvalidURI|InvalidName",
        "MongoDB does not support an option of the URL",
        "check the options after the `?`",
    ),
    _fault(
        StoreUnavailable,
        r"NotPrimaryError|not primary|node is recovering",
        "the server is not the primary of its replica set",
        "name the replica set as replicaSet in the URL, without directConnection",
    ),
    *NETWORK,
)


def is_full(exc: BaseException) -> bool:
    """Return whether *exc* reports that the server has no space."""
    code = exc.code if isinstance(exc, OperationFailure) else None
    # Atlas uses one code for an exhausted quota and for wrong credentials.
    return code in FULL or (code == ATLAS_ERROR and "quota" in str(exc))


def is_anonymous(exc: BaseException) -> bool:
    """Return whether *exc* refuses a connection that has signed in as nobody."""
    # The text goes on with the command, which holds what a client sent.
    is_unauthorized = isinstance(exc, OperationFailure) and exc.code == UNAUTHORIZED
    return is_unauthorized and "requires authentication" in str(exc)[:100]


def store_error(operation: str, exc: BaseException) -> Exception:
    """Return the error that a store raises for the driver's *exc*. Its message is the operation alone."""
    code = exc.code if isinstance(exc, OperationFailure) else None
    if isinstance(exc, DuplicateKeyError):
        return DuplicateSession(operation)
    if isinstance(exc, InvalidDocument) or code in TOO_LARGE:
        return ValueError(f"{operation}: the session does not fit a MongoDB document")
    if is_full(exc):
        return StoreFull(operation, Problem("MongoDB has no space left", "make room on its disk"))
    if code is not None and code in REFUSED:
        return StoreRefused(operation, NO_LOGIN if is_anonymous(exc) else REFUSED[code])
    fault = None if isinstance(exc, OperationFailure) else fault_in(exc, FAULTS)
    return StoreUnavailable(operation) if fault is None else fault.kind(operation, fault.problem)


def problem_of_servers(topology: TopologyDescription) -> Problem | None:
    """Return what the driver knows to be wrong with the servers. A call that timed out does not say it."""
    servers = topology.server_descriptions().values()
    errors = [server.error for server in servers if server.error is not None]
    if found := next(filter(None, (fault_in(error, FAULTS) for error in errors)), None):
        return found.problem
    if topology.topology_type_name == "ReplicaSetNoPrimary":
        return NO_PRIMARY if any(server.is_server_type_known for server in servers) else NO_MEMBER
    return None
