"""What the session layer raises; `SessionMixin` answers each with its status and code.

::

    SessionError
    ├── SessionEnded        409 session_ended     the cookie's session was over before this request wrote
    ├── SessionChanged      409 session_changed   it ended, or its ID was rotated, while this request ran
    ├── SessionTooLarge     413 session_too_large the data would pass a limit; nothing was written
    ├── InsecureTransport   500 insecure_transport  a session cookie over plain HTTP beyond loopback
    ├── SignInRevoked       401 bad_credentials   the account was disabled or changed during sign-in
    └── ReauthenticationRequired  403 reauthentication_required  the last proof of who it is was too long ago
    Busy                    503 busy              too much of a bounded resource is in use; nothing was begun
    Throttled               429 throttled         too many tries; nothing was begun
    PasswordRefused         422 password_refused  a new password is too weak; nothing was changed
"""

from __future__ import annotations

from typing import ClassVar

from stormcellar.stores import StoreUnavailable


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


class ReauthenticationRequired(SessionError):
    """This needs a proof of who it is that is more recent; nothing was done."""

    status = 403
    code = "reauthentication_required"


RETRY_AFTER_S = 2
"""When to come back after a 503."""


class Busy(Exception):
    """A bounded resource is in use to its limit; nothing was begun."""


class Throttled(Exception):
    """Too many tries; nothing was begun.

    Args:
        retry_after_s: In how many seconds the next one can succeed, at least 1.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class PasswordRefused(ValueError):
    """A new password will not do; the message says to its owner what would."""


def answer_of(error: BaseException | None) -> tuple[int, int | None] | None:
    """Return the status and the seconds of Retry-After, if any, with which *error* is answered.

    None for what has no answer of its own.
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
