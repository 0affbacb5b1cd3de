"""What each error of the session layer is answered with."""

from __future__ import annotations

import pytest

from stormcellar import errors


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
