"""What a store raises. Absence is a value (`Absent`, `Outcome.GONE`); only faults are exceptions.

::

    StoreError
    ├── StoreUnavailable    no answer; a write's outcome is unknown; the driver's error is __cause__
    │   └── StoreFull       the backend is out of memory; nothing was written
    ├── StoreRefused        the backend refuses our credentials or rights; somebody must change the set-up
    └── DuplicateSession    create() met an existing handle
"""


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
