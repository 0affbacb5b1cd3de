"""What goes wrong, in words: the codes and messages that clients see."""

from __future__ import annotations

from tornado.web import HTTPError

from server.errors import Busy, SessionError
from stores import StoreUnavailable

MESSAGES = {
    "bad_request": "The request is malformed.",
    "bad_credentials": "The user name or the password is wrong.",
    "unauthenticated": "Sign in first.",
    "forbidden": "The form is out of date, or came from another site. Nothing was done. Reload it and retry.",
    "not_found": "There is nothing here.",
    "method_not_allowed": "This address does not take that method.",
    "session_ended": "Your session has ended. Nothing was saved.",
    "session_changed": "Your session changed while this was at work. Nothing was saved.",
    "session_too_large": "That is more than a session holds. Nothing was saved.",
    "unsupported_media_type": "The body has a type that this address does not take.",
    "unprocessable": "That cannot be done with the value stored.",
    "busy": "Too many people are signing in. Try again in a moment.",
    "store_unavailable": "The session store does not answer. Try again in a moment.",
    "insecure_transport": "This server is not set up for plain HTTP beyond this machine.",
    "internal": "Something went wrong.",
}

_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "session_too_large",
    415: "unsupported_media_type",
    422: "unprocessable",
}


class Problem(HTTPError):
    """An error with a message for the client; the code follows from the status."""

    def __init__(self, status: int, message: str | None = None, *, code: str | None = None) -> None:
        super().__init__(status)
        self.code = code or _CODES.get(status, "internal")
        self.message = message or MESSAGES[self.code]


def describe(status: int, error: BaseException | None) -> tuple[str, str]:
    """Return the code and the message for an answer of *status* that *error* led to."""
    if isinstance(error, Problem):
        return error.code, error.message
    if isinstance(error, SessionError):
        code = error.code
    elif isinstance(error, StoreUnavailable):
        code = "store_unavailable"
    elif isinstance(error, Busy):
        code = "busy"
    else:
        code = _CODES.get(status, "internal")
    return code, MESSAGES[code]
