"""`reauthenticated`: what needs a recent proof of who the user is, although they are signed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from tornado.httputil import url_concat
from tornado.web import RequestHandler, authenticated

from stormcellar.errors import ReauthenticationRequired

if TYPE_CHECKING:
    from stormcellar.web.mixin import SessionMixin

P = ParamSpec("P")
H = TypeVar("H", bound="SessionMixin")
Method = Callable[Concatenate[H, P], Awaitable[None] | None]


class ReauthenticationMixin(RequestHandler):
    """The part of `SessionMixin` that asks again."""

    async def reauthenticate(self) -> bool:
        """Have the user prove again who they are, for `server.reauthenticated`. Override to ask in place.

        As it stands, a page leads to the setting `reauthenticate_url` with `?next=`, and anything else is
        refused: nothing that was posted is kept or sent again.

        Returns:
            Whether they have just done so. If not, this has answered the request.

        Raises:
            ReauthenticationRequired: Nothing was done.
        """
        url = self.settings.get("reauthenticate_url")
        if url is None or self.request.method not in ("GET", "HEAD"):
            raise ReauthenticationRequired
        self.redirect(url_concat(url, {"next": self.request.uri or "/"}), status=303)
        return False


def reauthenticated(
    within: float | None = None,
) -> Callable[[Method[H, P]], Callable[Concatenate[H, P], Awaitable[None]]]:
    """Let a method of a `SessionMixin` handler run only soon after the user proved who they are::

        @reauthenticated(within=300)
        async def post(self): ...

    Else the handler's `reauthenticate()` decides. Whoever is not signed in is treated as by
    `tornado.web.authenticated`. A proof ends with `session.login(session.user)`: it changes the session ID,
    keeps the data and starts the time anew.

    Args:
        within: Seconds; None: `Lifetime.reauth_s`.

    Raises:
        ValueError: *within* is not positive.
    """
    if within is not None and not within > 0:
        raise ValueError(f"within must be a positive number of seconds, not {within!r}")

    def decorate(method: Method[H, P]) -> Callable[Concatenate[H, P], Awaitable[None]]:
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
