"""A store's faults in a line, for those who run the server."""

from __future__ import annotations

import os

from stormcellar.stores import StoreError, StoreRefused


def refusal(exc: StoreRefused) -> str:
    """Return the line on a store that answers but will not have us."""
    return f"the store refuses us ({exc}): check the user, the password and their rights in its URL"


def reason(exc: StoreError) -> str:
    """Return why a store did not answer, without the driver's own words: they can repeat a password."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return type(exc.__cause__ or exc).__name__
