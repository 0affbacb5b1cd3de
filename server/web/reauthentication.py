"""`reauthenticated`: what needs a recent proof of who the user is, although they are signed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import isawaitable
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from tornado.httputil import url_concat
from tornado.web import authenticated

from stormcellar.errors import ReauthenticationRequired
from stormcellar.web.session_handler import SessionHandler


class ReauthenticationMixin(SessionHandler):
    """The part of `SessionMixin` for a second proof of who the user is."""

    async def reauthenticate(self) -> bool:
        """Let the user prove again who they are, for `reauthenticated`. Override it to ask in place.

        By default a GET redirects to the setting `reauthenticate_url` with `?next=`, and any other request is
        refused: what was posted is neither kept nor sent again.

        Returns:
            Whether the user has just done so. If not, this method has answered the request.

        Raises:
            ReauthenticationRequired: Nothing was done.
        """
        url = self.settings.get("reauthenticate_url")
        if url is None or self.request.method not in ("GET", "HEAD"):
            raise ReauthenticationRequired
        self.redirect(url_concat(url, {"next": self.request.uri or "/"}), status=303)
        return False


P = ParamSpec("P")
H = TypeVar("H", bound=ReauthenticationMixin)
Method = Callable[Concatenate[H, P], Awaitable[None] | None]


@overload
def reauthenticated(within: Method[H, P]) -> Callable[Concatenate[H, P], Awaitable[None]]: ...


@overload
def reauthenticated(
    within: float | None = None,
) -> Callable[[Method[H, P]], Callable[Concatenate[H, P], Awaitable[None]]]: ...


def reauthenticated(within: Any = None) -> Any:
    """Run a method of a `SessionMixin` handler only if the user proved recently who they are::

        @reauthenticated(within=300)
        async def post(self): ...

    Otherwise the handler's `reauthenticate()` decides. A visitor is treated as by
    `tornado.web.authenticated`. After a new proof call `session.login(session.user)`: it rotates the session
    ID, keeps the data and restarts the time.

    Args:
        within: Seconds; None: `Lifetime.reauth_s`.

    Raises:
        ValueError: *within* is not positive.
    """
    if callable(within):  # `@reauthenticated` without parentheses
        return reauthenticated()(within)
    if within is not None and not within > 0:
        raise ValueError(f"within must be a positive number of seconds, not {within!r}")

    def decorate(method: Method[H, P], /) -> Callable[Concatenate[H, P], Awaitable[None]]:
        @wraps(method)
        async def wrapper(handler: H, /, *args: P.args, **kwargs: P.kwargs) -> None:
            if handler.session.user is None:
                await _awaited(authenticated(method)(handler, *args, **kwargs))
            elif handler.sessions.is_recent(handler.session, within_s=within) or (
                await handler.reauthenticate()
            ):
                await _awaited(method(handler, *args, **kwargs))

        return wrapper

    return decorate


async def _awaited(result: Any) -> None:
    if isawaitable(result):
        await result
