"""The errors of the session layer; `SessionMixin` answers each with its status and code.

::

    SessionError
    ├── SessionEnded        409 session_ended     the request is late: its session was over when it was loaded
    ├── SessionChanged      409 session_changed   it ended, or its ID was rotated, while this request ran
    ├── SessionTooLarge     413 session_too_large the data would exceed a limit; nothing was written
    ├── InsecureTransport   500 insecure_transport  a session cookie over plain HTTP beyond loopback
    ├── SignInRevoked       401 bad_credentials   the account was disabled or changed during sign-in
    └── ReauthenticationRequired  403 reauthentication_required  the last proof of identity was too long ago
    Busy                    503 busy              a limited resource is fully used; nothing was done
    Throttled               429 throttled         too many attempts; nothing was done
    PasswordRefused         422 password_refused  a new password is too weak; nothing was changed
"""

from __future__ import annotations

from typing import ClassVar


class SessionError(Exception):
    """Base class of the errors of the session layer."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "session_error"


class SessionEnded(SessionError):
    """The session was over, or had another ID, while the request was on its way; nothing was saved."""

    status = 409
    code = "session_ended"


class SessionChanged(SessionError):
    """The session ended or its ID was rotated while this request ran; nothing was saved."""

    status = 409
    code = "session_changed"


class SessionTooLarge(SessionError):
    """The data of the session would exceed a limit; nothing was saved."""

    status = 413
    code = "session_too_large"


class InsecureTransport(SessionError):
    """A session cookie cannot be set: the request came over plain HTTP from beyond loopback."""

    status = 500
    code = "insecure_transport"


class SignInRevoked(SessionError):
    """The account was disabled or its password changed during sign-in; nobody is signed in."""

    status = 401
    code = "bad_credentials"


class ReauthenticationRequired(SessionError):
    """The user must prove again who they are; nothing was done."""

    status = 403
    code = "reauthentication_required"


class Busy(Exception):
    """A limited resource, such as password hashing, is fully used; nothing was done."""


class Throttled(Exception):
    """Too many attempts; nothing was done.

    Args:
        retry_after_s: Seconds until the next attempt is allowed, at least 1.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"try again in {self.retry_after_s} s"


class PasswordRefused(ValueError):
    """A new password is not accepted; the message tells its owner why."""
