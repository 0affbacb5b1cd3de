"""What each error of the session layer is answered with."""

from __future__ import annotations

import pickle

import pytest

from stormcellar import Lifetime, errors
from stormcellar.app.error_texts import describe


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.SessionEnded, 409, "session_ended"),
        (errors.SessionChanged, 409, "session_changed"),
        (errors.SessionTooLarge, 413, "session_too_large"),
        (errors.InsecureTransport, 500, "insecure_transport"),
        (errors.SignInRevoked, 401, "bad_credentials"),
    ],
)
def test_each_error_has_its_status_and_code(
    error: type[errors.SessionError], status: int, code: str
) -> None:  # F10
    """They are part of the interface, are caught as one, and say nothing that a client may not see."""
    raised = error()

    assert (raised.status, raised.code, str(raised)) == (status, code, "")
    assert isinstance(raised, errors.SessionError)


def test_a_refused_sign_in_looks_like_a_wrong_password() -> None:  # E1
    """An account that was disabled while it signed in is answered as one that never was."""
    assert (errors.SignInRevoked.status, errors.SignInRevoked.code) == (401, "bad_credentials")


def test_errors_survive_pickling() -> None:
    """An error that another process raised, such as a test runner's, reads the same here."""
    with pytest.raises(ValueError, match="idle_s") as raised:
        Lifetime(idle_s=-1)
    known: list[Exception] = [raised.value, errors.Throttled(3), errors.SessionChanged()]

    again = [pickle.loads(pickle.dumps(error)) for error in known]

    assert [(type(error), str(error)) for error in again] == [(type(error), str(error)) for error in known]


@pytest.mark.parametrize(
    ("seconds", "wait"),
    [
        *((1, "1 second"), (60, "60 seconds"), (61, "2 minutes"), (7200, "120 minutes"), (7201, "3 hours")),
        *((86_400, "24 hours"), (172_801, "3 days"), (604_800, "7 days")),
    ],
)
def test_wait_is_told_in_a_unit_that_fits(seconds: int, wait: str) -> None:
    """Rounded up, so that whoever comes back then is not refused again."""
    assert describe(429, errors.Throttled(seconds)) == (
        "throttled",
        f"Too many attempts. Try again in {wait}.",
    )
