"""What a store raises. Absence is a value (`Absent`, `Outcome.GONE`); only faults are exceptions.

::

    StoreError
    ├── StoreUnavailable    no answer; a write's outcome is unknown; the driver's error is __cause__
    │   └── StoreFull       the backend is out of memory; nothing was written
    ├── StoreRefused        the backend refuses our credentials or rights; somebody must change the set-up
    └── DuplicateSession    create() met an existing handle
"""

from __future__ import annotations

import os


class StoreError(Exception):
    """Base of everything a store raises on purpose."""


class StoreUnavailable(StoreError):
    """The backend gave no usable answer in time: network, time-out, failover, read-only, pool exhausted.

    A write may or may not have happened. Trying again later may help.
    """


class StoreFull(StoreUnavailable):
    """The backend is at its limit. Nothing was written."""


class StoreRefused(StoreError):
    """The backend refuses who we are or what we ask. Trying again does not help."""


class DuplicateSession(StoreError):
    """A record with this handle exists already; it was not changed."""


def refusal_message(exc: StoreRefused) -> str:
    """Return one line for the operator: the store refuses us, and what to check."""
    return f"the store refuses us ({exc}): check the user, the password and their rights in its URL"


def failure_reason(exc: StoreError) -> str:
    """Return why a store failed, for a log. The driver's own text is left out: it can repeat a password."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return type(exc.__cause__ or exc).__name__
