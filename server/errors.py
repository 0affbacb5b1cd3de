"""What the session layer raises; `SessionMixin` answers each with its status and code.

::

    SessionError
    ├── SessionEnded        409 session_ended     the cookie's session was over before this request wrote
    ├── SessionChanged      409 session_changed   it ended, or its ID was rotated, while this request ran
    ├── SessionTooLarge     413 session_too_large the data would pass a limit; nothing was written
    ├── InsecureTransport   500 insecure_transport  a session cookie over plain HTTP beyond loopback
    └── SignInRevoked       401 bad_credentials   the account was disabled or changed during sign-in
    Busy                    503 busy              too much of a bounded resource is in use; nothing was begun
"""

from __future__ import annotations

from typing import ClassVar


class SessionError(Exception):
    """Base of what the session layer raises on purpose."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "session_error"


class SessionEnded(SessionError):
    """The session of the cookie presented is over, so nothing was saved."""

    status = 409
    code = "session_ended"


class SessionChanged(SessionError):
    """The session ended, or its ID was rotated, while this request was at work; nothing was saved."""

    status = 409
    code = "session_changed"


class SessionTooLarge(SessionError):
    """The session's data would pass a limit; nothing was saved."""

    status = 413
    code = "session_too_large"


class InsecureTransport(SessionError):
    """A session cookie was wanted for a request that came over plain HTTP from beyond loopback."""

    status = 500
    code = "insecure_transport"


class SignInRevoked(SessionError):
    """The account was disabled or its password changed while it signed in; nobody is signed in."""

    status = 401
    code = "bad_credentials"


class Busy(Exception):
    """A bounded resource is in use to its limit; nothing was begun."""
