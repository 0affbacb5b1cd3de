"""`SessionSocketMixin`: a WebSocket that is open only as long as its session is live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal

from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler

from stormcellar.errors import SessionEnded
from stormcellar.sessions.live.watched import is_same_sign_in
from stormcellar.sessions.session import Session
from stormcellar.web.mixin import SessionMixin
from stormcellar.web.open_socket import OpenSocket
from stormcellar.web.socket_limits import counted


class SessionSocketMixin(SessionMixin):
    """Gives a `WebSocketHandler` a session, and closes the socket when that session is over.

    Put it before every other base class. `self.session` is what the handshake saw, and cannot change; use
    `fresh_session` to read and write later. When the session ends, in whatever process, the socket is closed
    with 4401 and the reason; messages that come after that are dropped.

    The handshake is refused with 401 without a signed-in user, with 403 for a foreign or missing Origin, and
    with 429 if too many sockets are open. A browser's script sees each of them as 1006.
    """

    socket_visitors: ClassVar[bool] = False
    """Whether visitors, who are not signed in, get a socket. A sign-in to their session closes it."""
    allow_originless: ClassVar[bool] = False
    """Whether clients that send no Origin, so no browsers, get a socket."""
    socket_activity: ClassVar[Literal["none", "messages"]] = "none"
    """What counts as activity of the session: nothing, or each message from the client. Pings never do."""
    max_message_bytes: ClassVar[int] = 64 * 1024
    """A larger message closes the socket with 1009. The setting `websocket_max_message_size` wins."""
    max_messages_per_s: ClassVar[float] = 50.0
    """More, after twice as many at once, close the socket with 1008."""
    ping_every_s: ClassVar[float] = 30.0
    """The client is pinged this often, and the socket closed if no pong has come by the next ping; 0: it is
    not. The setting `websocket_ping_interval` wins."""
    max_sockets_per_session: ClassVar[int] = 20
    max_sockets_per_address: ClassVar[int] = 200

    @property
    def max_message_size(self) -> int:
        """See `max_message_bytes`."""
        size: int = self.settings.get("websocket_max_message_size", self.max_message_bytes)
        return size

    @property
    def ping_interval(self) -> float:
        """See `ping_every_s`."""
        interval: float = self.settings.get("websocket_ping_interval", self.ping_every_s)
        return interval

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Check the handshake, accept it, and serve the socket until it is closed."""
        if not isinstance(self, WebSocketHandler):
            raise TypeError("SessionSocketMixin belongs before WebSocketHandler")
        require_handshake(self)
        socket = self._stormcellar.socket = OpenSocket(
            self,
            messages_per_s=self.max_messages_per_s,
            counts_messages=self.socket_activity == "messages",
        )
        per_session, per_address = self.max_sockets_per_session, self.max_sockets_per_address
        with counted(self, per_session=per_session, per_address=per_address), socket.serving():
            serving = super().get(*args, **kwargs)
            assert serving is not None  # WebSocketHandler.get is a coroutine function
            await serving

    @asynccontextmanager
    async def fresh_session(self) -> AsyncIterator[Session]:
        """Load the session as it is now, and save at the end of the block what it changed::

            async with self.fresh_session() as session:
                session["read"] = message_id

        `modify`, `flash` and `logout` work too. `login`, `renew` and `expire_in` raise RuntimeError, since
        they need a response that sets the cookie: have the page send a request for them.

        Raises:
            SessionEnded: There is no session, or it is over; the socket is being closed.
            SessionChanged: It ended while the block ran; nothing was saved.
            SessionTooLarge, StoreUnavailable
        """
        socket: OpenSocket | None = self._stormcellar.socket
        if socket is None or socket.watched is None or socket.watched.end is not None:
            raise SessionEnded
        watched = socket.watched
        try:
            # By the handle: the watch may not have heard yet that the ID was renewed.
            async with self.sessions.open(watched.record.handle) as session:
                if session.record is None or not is_same_sign_in(session.record, watched.record):
                    raise SessionEnded
                yield session
        finally:
            self.sessions.watch.check(watched)


def require_handshake(handler: SessionSocketMixin) -> None:
    """Raise HTTPError if *handler* must not accept the handshake."""
    is_upgrade, origin = "Upgrade" in handler.request.headers, handler.request.headers.get("Origin")
    if is_upgrade and origin is None and not handler.allow_originless:
        raise HTTPError(403, "a socket was refused: no Origin")
    # Tornado compares the host alone, and browsers that ignore schemes in SameSite send the cookie.
    if handler.sessions.secure and (origin or "").lower() == f"http://{handler.request.host}".lower():
        raise HTTPError(403, "a socket was refused: the Origin is this host without TLS")
    if handler.session.user is None and not handler.socket_visitors:
        raise HTTPError(401, "a socket was refused: nobody is signed in")
