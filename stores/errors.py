"""The errors of a store. Absence is a value (`Absent`, `Outcome.GONE`); only failures are exceptions.

::

    StoreError
    ├── StoreUnavailable    no reply; the outcome of a write is unknown; the driver's error is __cause__
    │   └── StoreFull       the backend is out of memory; nothing was written
    ├── StoreRefused        the backend refuses the credentials, the rights or an index; somebody must act
    └── DuplicateSession    create() found an existing handle
"""

from __future__ import annotations

import os
from typing import ClassVar


class StoreError(Exception):
    """Base class of the errors of a store."""


class StoreUnavailable(StoreError):
    """The backend did not send a usable reply in time: network, time-out, failover, read-only, no connection.

    A write may or may not have happened. A later retry may succeed.
    """


class StoreFull(StoreUnavailable):
    """The backend is full. Nothing was written."""


class StoreRefused(StoreError):
    """The backend refuses the credentials or the operation. A retry does not help."""

    advice: ClassVar[str] = "check the user and password in its URL, and the rights of the user"
    """What the operator does about it; empty if the message says it."""


class DuplicateSession(StoreError):
    """A record with this handle exists already. It was not changed."""


def refusal_message(exc: StoreRefused) -> str:
    """Return one line for the operator: that the store refuses, and what to do."""
    return f"the store refuses access ({exc}): {exc.advice}" if exc.advice else f"the store refuses: {exc}"


def failure_reason(exc: StoreError) -> str:
    """Return why a store failed, for a log. The driver's own text is left out: it can repeat a password."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return type(exc.__cause__ or exc).__name__
