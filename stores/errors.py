"""The errors of a store. Absence is a value (`Absent`, `Outcome.GONE`); only failures are exceptions.

::

    StoreError
    ├── StoreUnavailable    no usable reply; a write may have happened; the driver's error is __cause__
    │   ├── StoreFull       the backend is out of memory; nothing was written
    │   ├── StoreRefused    the backend refuses the credentials, the rights or the set-up; somebody must act
    │   └── ReplicasMissing ping() only: reads work, and writes wait in vain for replicas
    └── DuplicateSession    create() found an existing handle

A driver's own text can repeat a password. So it is only searched for known faults (`fault_in`), and what an
operator reads is the text of a `Problem`.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Problem(NamedTuple):
    """What is wrong with a store and what to do about it, for an operator. Neither repeats a secret."""

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}; {self.advice}"


class StoreError(Exception):
    """Base class of the errors of a store.

    Args:
        message: The operation and the kind of failure.
        problem: What is wrong, if the store knows it.
    """

    def __init__(self, message: str = "", problem: Problem | None = None) -> None:
        super().__init__(message)
        self.problem = problem


class StoreUnavailable(StoreError):
    """The backend did not send a usable reply in time: network, time-out, failover, read-only, no connection.

    A write may or may not have happened. A later retry may succeed.
    """


class StoreFull(StoreUnavailable):
    """The backend is full. Nothing was written."""


class StoreRefused(StoreUnavailable):
    """The backend refuses the credentials, a right that is missing, or the way it is set up.

    A retry does not help until somebody acts; then the store serves again without a restart.
    """


class ReplicasMissing(StoreUnavailable):
    """`ping` only: fewer replicas than the store waits for are connected. All else is as it should be.

    Sessions are read. What has to reach the replicas, such as a sign-in, is answered with `StoreUnavailable`.
    """


class DuplicateSession(StoreError):
    """A record with this handle exists already. It was not changed."""


class Fault(NamedTuple):
    """A fault that a driver's error is known by."""

    sign: str
    """A regular expression. It is searched for in the class and the text of the error and of its causes."""
    kind: type[StoreError]
    problem: Problem


def _unavailable(sign: str, what: str, advice: str) -> Fault:
    return Fault(sign, StoreUnavailable, Problem(what, advice))


TIME_OUT = _unavailable(
    r"(?i)time(d )?-?out",
    "the store does not reply in time",
    "check host, port and firewall, that both sides use TLS or neither does, and that --store-timeout and "
    "--store-connect-timeout are not too short",
)
NETWORK = (
    _unavailable(
        r"certificate has expired",
        "the certificate of the store has expired",
        "renew it on the server of the store",
    ),
    _unavailable(
        r"(Hostname|IP address) mismatch",
        "the certificate of the store is for another host name",
        "use a name of the certificate as the host in the URL, or issue a certificate for this host",
    ),
    _unavailable(
        r"CERTIFICATE_VERIFY_FAILED",
        "the certificate of the store is not from a trusted authority",
        "name the file of its CA in the URL, as ssl_ca_certs for Redis, as tlsCAFile for MongoDB",
    ),
    _unavailable(
        r"(?i)certificate.required|alert.(bad|no|unknown).certificate|alert.unknown.ca",
        "the store requires a certificate of the client, or does not accept it",
        "name it in the URL, as ssl_certfile and ssl_keyfile for Redis, as tlsCertificateKeyFile for MongoDB",
    ),
    _unavailable(
        r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|PACKET_LENGTH|UNEXPECTED_EOF|SSL handshake failed",
        "the store does not use TLS at this port",
        "use the TLS port of the store, or a URL without TLS",
    ),
    _unavailable(
        r"SSLError|\[SSL", "the TLS handshake with the store fails", "check the TLS settings on both sides"
    ),
    _unavailable(
        r"gaierror|Name or service not known|name resolution",
        "the host name of the store is not known",
        "check the host in the URL, and DNS",
    ),
    _unavailable(
        r"FileNotFoundError|Errno 2\]",
        "a file of the URL, a socket or a certificate, does not exist",
        "check the path, and that the store runs",
    ),
    _unavailable(
        r"PermissionError|Errno 13\]",
        "this user may not open a file of the URL, a socket or a certificate",
        "change its owner or mode",
    ),
    _unavailable(
        r"ConnectionRefused|Errno 111\]",
        "nothing accepts connections at the address of the store",
        "start the store, or correct host and port in the URL",
    ),
    _unavailable(
        r"No route to host|Network is unreachable|Errno 11[03]\]|Errno 101\]",
        "the network does not reach the host of the store",
        "check the host in the URL, routes and firewalls",
    ),
    _unavailable(
        r"(?i)connection (was |is )?(closed|lost|reset)|ConnectionReset|IncompleteRead|BrokenPipe",
        "the server closes the connection without a reply",
        "check that the port is that of the store, that both sides use TLS or neither does, and that the "
        "store accepts more connections",
    ),
    TIME_OUT,
)
"""Faults of any store, the specific ones first."""


def fault_in(exc: BaseException, faults: Iterable[Fault]) -> Fault | None:
    """Return the first of *faults* whose sign is in the driver's *exc* or in a cause of it."""
    text = "\n".join(f"{type(each).__name__}: {str(each)[:4000]}" for each in _chain(exc))
    return next((fault for fault in faults if re.search(fault.sign, text)), None)


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield *exc* and its causes, each once: `raise x from x`, as in PyMongo 4.20, makes a cycle."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__cause__ or exc.__context__


def problem_of(exc: StoreError) -> Problem:
    """Return what is wrong, for the operator, also for a store that gives no `Problem` itself."""
    if exc.problem is not None:
        return exc.problem
    if isinstance(exc, StoreRefused):
        return Problem(
            f"the store refuses access ({exc})",
            "check the user and password in its URL, and the rights of the user",
        )
    if exc.__cause__ is not None and (fault := fault_in(exc.__cause__, NETWORK)):
        return fault.problem
    return Problem(
        f"the store does not answer ({failure_reason(exc)})", "check that it runs at the address in its URL"
    )


def failure_reason(exc: StoreError) -> str:
    """Return why a store failed, for a log. The driver's own text is left out: it can repeat a password."""
    if exc.problem is not None:
        return exc.problem.what
    for cause in _chain(exc):
        # OpenSSL's numbers are not those of the system.
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and (cause.errno or 0) > 0:
            return os.strerror(cause.errno or 0)
    return type(exc.__cause__ or exc).__name__


def log_text(exc: StoreError) -> str:
    """Return the class of *exc* and the reason, if there is one, for a line in a log."""
    name, reason = type(exc).__name__, failure_reason(exc)
    return name if reason == name else f"{name} ({reason})"
