"""What goes wrong, in words: the codes and messages that clients see, the titles that people see."""

from __future__ import annotations

from typing import NamedTuple

from tornado.web import HTTPError

from stormcellar.errors import Busy, PasswordRefused, SessionError, Throttled
from stormcellar.stores import StoreUnavailable


class Words(NamedTuple):
    """How one problem is told: the headline of its page, and the message of page and JSON alike."""

    title: str
    message: str


WORDS = {
    "bad_request": Words("That could not be read", "The request is malformed."),
    "bad_credentials": Words("That did not match", "The user name or the password is wrong."),
    "unauthenticated": Words("Who are you?", "Sign in first."),
    "forbidden": Words(
        "Better to start over",
        "The form is out of date, or came from another site. Nothing was done. Reload it and retry.",
    ),
    "not_found": Words("Nothing to see", "There is nothing here."),
    "method_not_allowed": Words("Not in this way", "This address does not take that method."),
    "session_ended": Words("That came too late", "Your session has ended. Nothing was saved."),
    "session_changed": Words(
        "Something else came first", "Your session changed while this was at work. Nothing was saved."
    ),
    "session_too_large": Words("That is too much", "That is more than a session holds. Nothing was saved."),
    "unsupported_media_type": Words(
        "That could not be read", "The body has a type that this address does not take."
    ),
    "misdirected": Words("Wrong address", "This server does not go by that name."),
    "unprocessable": Words("That does not add up", "That cannot be done with the value stored."),
    "password_refused": Words("Another password, please", "That password will not do."),
    "reauthentication_required": Words("Is it you?", "Confirm your password first."),
    "throttled": Words("Too many tries", "Too many tries."),
    "busy": Words("One moment, please", "Too many people are signing in. Try again in a moment."),
    "store_unavailable": Words(
        "One moment, please", "The session store does not answer. Try again in a moment."
    ),
    "insecure_transport": Words(
        "Not over plain HTTP", "This server is reached over TLS, or from its own machine."
    ),
    "internal": Words("Something went wrong", "This is our fault, not yours. Nothing was saved."),
}

_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "session_too_large",
    415: "unsupported_media_type",
    421: "misdirected",
    422: "unprocessable",
}


class Problem(HTTPError):
    """An error with a message for the client; the code follows from the status."""

    def __init__(self, status: int, message: str | None = None, *, code: str | None = None) -> None:
        super().__init__(status)
        self.code = code or _CODES.get(status, "internal")
        self.message = message or WORDS[self.code].message


def describe(status: int, error: BaseException | None) -> tuple[str, str]:
    """Return the code and the message for an answer of *status* that *error* led to."""
    if isinstance(error, Problem):
        return error.code, error.message
    if isinstance(error, Throttled):
        return "throttled", f"{WORDS['throttled'].message} Try again in {_in_words(error.retry_after_s)}."
    if isinstance(error, PasswordRefused):
        return "password_refused", str(error)
    code = _code(status, error)
    return code, WORDS[code].message


def _code(status: int, error: BaseException | None) -> str:
    if isinstance(error, SessionError) and error.code in WORDS:
        return error.code
    if isinstance(error, StoreUnavailable):
        return "store_unavailable"
    if isinstance(error, Busy):
        return "busy"
    return _CODES.get(status, "internal")


def _in_words(seconds: int) -> str:
    """Return *seconds* as people say it, minutes rounded up to what they would wait for."""
    count, name = (seconds, "second") if seconds <= 60 else (-(-seconds // 60), "minute")
    return f"{count} {name}" + ("s" if count != 1 else "")
