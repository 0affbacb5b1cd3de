"""What is said about a store's error, in a line that can go to a log."""

from __future__ import annotations

import socket
import ssl

import pytest

from stormcellar.stores import StoreRefused, StoreUnavailable
from stormcellar.stores.errors import Problem, failure_reason, problem_of


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


@pytest.mark.parametrize("length", [1, 2])
def test_causes_that_form_a_cycle_end(length: int) -> None:
    """A driver that raises an error from itself, or from one that it caused, does not hang the process."""
    causes = [RuntimeError("hunter2") for _ in range(length)]
    for n, cause in enumerate(causes):
        cause.__cause__ = causes[(n + 1) % length]
    error = StoreUnavailable("ping")
    error.__cause__ = causes[0]

    assert failure_reason(error) == "RuntimeError"
    assert problem_of(error).what == "the store does not answer (RuntimeError)"


def test_openssls_errno_is_not_the_systems() -> None:
    """OpenSSL's error 1 is told as a certificate, and not as errno 1, which means a right that is missing."""
    error = StoreUnavailable("ping")
    error.__cause__ = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] hunter2")

    assert failure_reason(error) == "SSLCertVerificationError"
    assert str(problem_of(error)).startswith("the certificate of the store is not from a trusted authority;")


def test_unknown_host_is_not_told_by_an_errno_of_the_system() -> None:
    """The number of a failed look-up is negative, and no errno."""
    error = StoreUnavailable("ping")
    error.__cause__ = socket.gaierror(-2, "Name or service not known")

    assert failure_reason(error) == "gaierror"
    assert problem_of(error).what == "the host name of the store is not known"


def test_problem_of_a_store_counts_first() -> None:
    """What a store knows is the reason in the log and the message for the operator."""
    error = StoreRefused("ping", Problem("the user lacks a right", "grant it"))

    assert failure_reason(error) == "the user lacks a right"
    assert str(problem_of(error)) == "the user lacks a right; grant it"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            StoreRefused("ping: E"),
            "the store refuses access (ping: E); check the user and password in its URL, and the rights of "
            "the user",
        ),
        (
            StoreUnavailable("ping"),
            "the store does not answer (StoreUnavailable); check that it runs at the address in its URL",
        ),
    ],
)
def test_store_without_a_diagnosis_is_told_in_one_line(error: StoreUnavailable, expected: str) -> None:
    """A store of one's own that raises a bare error is told as well, in the store's words."""
    assert str(problem_of(error)) == expected
