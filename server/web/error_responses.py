"""The HTTP status and Retry-After of each error of the session layer and the store."""

from __future__ import annotations

from stormcellar.errors import Busy, PasswordRefused, SessionError, Throttled
from stormcellar.stores import StoreUnavailable

RETRY_AFTER_S = 2
"""Retry-After of a 503: the store is down, or a limited resource is fully used."""


def answer_of(error: BaseException | None) -> tuple[int, int | None] | None:
    """Return the HTTP status for *error* and the seconds for Retry-After, or None for the latter.

    Returns:
        None if *error* has no status of its own.
    """
    match error:
        case SessionError():
            return error.status, None
        case Throttled():
            return 429, error.retry_after_s
        case PasswordRefused():
            return 422, None
        case Busy() | StoreUnavailable():
            return 503, RETRY_AFTER_S
    return None
