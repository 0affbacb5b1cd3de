"""What is said about a store's error, in a line that can go to a log."""

from __future__ import annotations

import pytest

from stormcellar.stores import StoreRefused, StoreUnavailable
from stormcellar.stores.errors import failure_reason, refusal_message


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (None, "StoreUnavailable"),
        (RuntimeError("AUTH hunter2"), "RuntimeError"),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
    ],
)
def test_reason_is_not_in_the_drivers_words(cause: Exception | None, expected: str) -> None:  # L8
    """What a driver says can repeat what it was given, so only the kind of fault is told."""
    error = StoreUnavailable("ping")
    error.__cause__ = cause

    assert failure_reason(error) == expected


def test_reason_is_found_behind_the_drivers_error() -> None:
    """The system's own reason counts, however deep a driver wraps it."""
    try:
        try:
            raise ConnectionRefusedError(111, "x")
        except OSError as refused:
            raise RuntimeError("wrapped") from refused
    except RuntimeError as wrapped:
        error = StoreUnavailable("ping")
        error.__cause__ = wrapped

    assert failure_reason(error) == "Connection refused"


def test_refusal_is_one_line_that_says_what_to_check() -> None:
    """The store's own summary is quoted; it never holds the driver's text."""
    message = refusal_message(StoreRefused("ping: AuthenticationError from Redis"))

    assert message == (
        "the store refuses access (ping: AuthenticationError from Redis): "
        "check the user and password in its URL, and the rights of the user"
    )
