"""The errors of redis-py, in the terms of the contract."""

from __future__ import annotations

from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ResponseError,
)

from stormcellar.stores.errors import StoreError, StoreFull, StoreRefused, StoreUnavailable
from stormcellar.stores.redis.connections import TooFewReplicas


def store_error(operation: str, exc: BaseException) -> StoreError:
    """Return the error of the contract for the driver's *exc*.

    Its message has only the class of *exc*: a server's error text repeats arguments, those of AUTH included.
    """
    if isinstance(exc, TooFewReplicas):
        return StoreUnavailable(f"{operation}: {exc}")
    summary = f"{operation}: {type(exc).__name__} from Redis"
    cause: BaseException | None = exc
    while cause is not None:
        # A failure inside a script is a plain error with the reason in its text: since Redis 6.2 for lack of
        # memory, in every version for lack of rights.
        text = str(cause) if isinstance(cause, ResponseError) else ""
        if isinstance(cause, OutOfMemoryError) or "OOM command not allowed" in text:
            return StoreFull(summary)
        if isinstance(cause, AuthenticationError | AuthorizationError | NoPermissionError):
            return StoreRefused(summary)
        # Of Sentinels that refuse, redis-py has only the text.
        if isinstance(cause, MasterNotFoundError) and "AuthenticationError" in str(cause):
            return StoreRefused(f"{summary}: a Sentinel refuses sentinel_username or sentinel_password")
        if "ACL failure in script" in text or "user executing the script can't" in text:
            return StoreRefused(summary)
        cause = cause.__cause__ or cause.__context__
    return StoreUnavailable(summary)


def is_foreign(reply: object) -> bool:
    """Return whether *reply* is the error for a key that holds another type than ours."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def is_unavailable(reply: object) -> bool:
    """Return whether *reply* is an error after which a retry may succeed."""
    if not isinstance(reply, Exception) or isinstance(reply, NoScriptError) or is_foreign(reply):
        return False
    return type(store_error("", reply)) is StoreUnavailable


def checked(operation: str, reply: Any) -> Any:
    """Return *reply*, which may be the error for a key of another type; raise every other error."""
    if isinstance(reply, Exception) and not is_foreign(reply):
        raise store_error(operation, reply) from reply
    return reply
