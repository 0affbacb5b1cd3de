"""The texts of errors, for pages and JSON: title, message and code of each."""

from __future__ import annotations

from typing import NamedTuple

from tornado.web import HTTPError

from stormcellar.errors import Busy, PasswordRefused, SessionError, Throttled
from stormcellar.stores import StoreUnavailable


class ProblemText(NamedTuple):
    """The headline of the error page, and the message on the page and in JSON."""

    title: str
    message: str


TEXTS = {
    "bad_request": ProblemText(
        "Invalid request", "The server cannot read this request. Go back and try again."
    ),
    "bad_credentials": ProblemText("Sign-in failed", "The user name or the password is wrong. Try again."),
    "unauthenticated": ProblemText("Sign in required", "Sign in to continue."),
    "forbidden": ProblemText(
        "Request refused",
        "The request came from another site, or its form has expired. Open the page again, then try again.",
    ),
    "not_found": ProblemText("Page not found", "There is nothing at this address."),
    "method_not_allowed": ProblemText(
        "Method not allowed", "This address does not support this request method."
    ),
    "session_ended": ProblemText(
        "Session ended", "Your session has ended. Nothing was saved. Try again, or sign in."
    ),
    "session_changed": ProblemText(
        "Session changed",
        "Your session changed at the same time, maybe by a double click. Look at the result; try again if you"
        " have to.",
    ),
    "session_too_large": ProblemText(
        "Too much data", "The session cannot hold this much data. Nothing was saved."
    ),
    "unsupported_media_type": ProblemText(
        "Content type not supported", "This address does not support this content type."
    ),
    "misdirected": ProblemText(
        "Wrong address", "This server does not serve this host name. Check the address."
    ),
    "unprocessable": ProblemText("Not possible", "This is not possible with the stored value."),
    "password_refused": ProblemText(
        "Choose another password", "This password is not valid. Choose another one."
    ),
    "reauthentication_required": ProblemText("Confirm your password", "Confirm your password to continue."),
    "throttled": ProblemText("Too many attempts", "Too many attempts."),
    "too_many_streams": ProblemText(
        "Too many open pages", "Too many pages are open at the same time. Close some, then try again."
    ),
    "busy": ProblemText("Please try again", "The server is busy. Nothing was done. Try again in a moment."),
    "store_unavailable": ProblemText(
        "Please try again", "The session store does not respond. Try again in a moment."
    ),
    "done": ProblemText("Done", "This was done."),
    "password_changed": ProblemText("Password changed", "Your password was changed."),
    "insecure_transport": ProblemText(
        "HTTPS required", "This connection is not secure. Open the address with https://."
    ),
    "internal": ProblemText(
        "Something went wrong",
        "An error occurred on the server, and your change may not be saved. Try again later.",
    ),
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
    429: "too_many_streams",
    503: "busy",
}


class Problem(HTTPError):
    """An error with a message for the client. Without *code* the status determines it."""

    def __init__(self, status: int, message: str | None = None, *, code: str | None = None) -> None:
        super().__init__(status)
        self.code = code or _CODES.get(status, "internal")
        self.message = message or TEXTS[self.code].message


def done(message: str) -> Problem:
    """Return what `PageHandler.done` tells after a success: *message*, with status 200."""
    return Problem(200, message, code="done")


def describe(status: int, error: BaseException | None) -> tuple[str, str]:
    """Return the code and the message of a response with *status*, caused by *error*."""
    if isinstance(error, Problem):
        return error.code, error.message
    if isinstance(error, Throttled):
        return "throttled", f"{TEXTS['throttled'].message} Try again in {_wait_text(error.retry_after_s)}."
    if isinstance(error, PasswordRefused):
        return "password_refused", str(error)
    code = _code(status, error)
    return code, TEXTS[code].message


def _code(status: int, error: BaseException | None) -> str:
    if isinstance(error, SessionError) and error.code in TEXTS:
        return error.code
    if isinstance(error, StoreUnavailable):
        return "store_unavailable"
    if isinstance(error, Busy):
        return "busy"
    return _CODES.get(status, "internal")


def _wait_text(seconds: int) -> str:
    """Return *seconds* as text, in the largest unit that fits, rounded up."""
    count, name = seconds, "second"
    for least_s, unit_s, unit in ((60, 60, "minute"), (7200, 3600, "hour"), (172_800, 86_400, "day")):
        if seconds > least_s:
            count, name = -(-seconds // unit_s), unit
    return f"{count} {name}" + ("s" if count != 1 else "")
