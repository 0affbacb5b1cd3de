"""`Client`: a browser for the tests of an application with sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn, Self, Unpack
from urllib.parse import urlencode

from tornado.web import Application

from stormcellar.addresses import is_loopback
from stormcellar.events import Event
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.session import Session
from stormcellar.stores import Record
from stormcellar.testing.browser_session import BrowserSession
from stormcellar.testing.clock import Clock
from stormcellar.testing.connection import Connection
from stormcellar.testing.cookies import CookieJar
from stormcellar.testing.faulty_store import FaultyStore
from stormcellar.testing.forms import find_form
from stormcellar.testing.managers import manager_of
from stormcellar.testing.requests import BodyOptions, Fields, Headers, RequestOptions
from stormcellar.testing.response import Response
from stormcellar.testing.sender import Sender
from stormcellar.testing.stream import EventStream, opened
from stormcellar.testing.websocket import TIMEOUT_S, WebSocket, connected


class Client:
    """A browser: it keeps cookies, sends form tokens and an Origin, and can be signed in without a password.

    ::

        async with Client(app) as client:
            await client.force_login("alice")
            response = await client.get("/account")

    Args:
        app: Any `Application` whose settings are from `session_settings`.
        base_url: Where *app* is served, such as `http://127.0.0.1:8888`. None: `async with` serves it on a
            free port of loopback, and at its end stops and closes the session manager.
        host: The host name that the browser shows, for an application with a cookie domain. None: that of
            *base_url*.
        sessions: The session manager, if the handlers use another one than that of the settings.

    Raises:
        TypeError: *app* is no `Application`.
        ValueError: *app* has no session manager, or the manager would set no cookie for *host*.
        RuntimeError: The manager was closed.
    """

    def __init__(
        self,
        app: Application,
        base_url: str | None = None,
        *,
        host: str | None = None,
        sessions: SessionManager | None = None,
    ) -> None:
        self.sessions: SessionManager = manager_of(app) if sessions is None else sessions
        """The session manager of the application."""
        if self.sessions.watch.is_closed:
            raise RuntimeError(
                "the session manager was closed, at the end of another test perhaps: make the application "
                "and its manager anew for each test"
            )
        self._app = app
        self._host = host
        self._owns_manager = False
        self._connection = Connection(base_url, host=host, is_secure=self.sessions.secure)
        name = self._connection.host_name
        if not (self.sessions.secure or is_loopback(name)):
            raise ValueError(f"no session cookie for {name!r} without TLS: make the manager with secure=True")
        self.cookies: CookieJar = CookieJar(name, self.sessions.now_ms)
        """The cookies of this browser."""
        self._session = BrowserSession(self.sessions, self.cookies)
        self._sender = Sender(self._connection, self.cookies, self._session)
        self.events: list[Event] = []
        """The session events of the application since this client was made, those of other clients too."""
        self.sessions.events.subscribe(self.events.append)
        if isinstance(self.sessions.clock, Clock):
            self.sessions.clock.subscribe(self.sessions.watch.check)

    async def __aenter__(self) -> Self:
        self._owns_manager |= self._connection.serve(self._app)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __enter__(self) -> NoReturn:
        raise TypeError("a client needs an event loop: write `async with Client(app) as client`")

    def __exit__(self, *exc_info: object) -> None:
        """Python looks for this method before it calls `__enter__`."""

    async def aclose(self) -> None:
        """Close the connections; stop the server that `async with` started, and its manager. Idempotent."""
        await self._connection.aclose()
        if self._owns_manager:
            await self.sessions.aclose()

    def another(self) -> Client:
        """Return another browser for the same server, without cookies; use `async with` or close it."""
        return Client(self._app, self._connection.base_url, host=self._host, sessions=self.sessions)

    # --- what a test controls ---

    @property
    def clock(self) -> Clock:
        """The manager's clock: `client.clock.advance(1800)`.

        Raises:
            TypeError: It is another clock, which cannot be moved.
        """
        if not isinstance(self.sessions.clock, Clock):
            raise TypeError(
                "this clock cannot be moved: SessionManager(..., clock=Clock()), or make_manager()"
            )
        return self.sessions.clock

    @property
    def store(self) -> FaultyStore:
        """The manager's store: `with client.store.failing(): ...`.

        Raises:
            TypeError: It is another store, which does not fail at will.
        """
        if not isinstance(self.sessions.store, FaultyStore):
            kind = type(self.sessions.store).__name__
            raise TypeError(f"a {kind} does not fail at will: FaultyStore(store), or make_manager()")
        return self.sessions.store

    async def sessions_of(self, user: str) -> list[Record]:
        """Return the live sessions of *user*, newest sign-in first, without their data."""
        return await self.sessions.of_user(user)

    async def logout_everywhere(self, user: str) -> int:
        """End every session of *user*, as another device could; return how many there were."""
        return await self.sessions.revoke_others(user, than="")

    # --- the session of this browser ---

    async def force_login(
        self, user: str, data: Mapping[str, Any] | None = None, *, remember: bool | None = None
    ) -> None:
        """Sign *user* in without a password, as `session.login` in a handler does.

        Args:
            data: What the session holds in addition; JSON values.
            remember: Keep the user signed in after the browser closes.

        Raises:
            SignInRevoked: The accounts of the manager refuse *user*.
            ValueError: *remember* has no effect, because `Lifetime.remember_s` is not set.
            StoreUnavailable
        """
        await self._session.sign_in(user, data or {}, remember=remember)

    async def logout(self) -> None:
        """End the session of this browser, as `session.logout` in a handler does."""
        async with self.session_transaction() as session:
            await session.logout()

    def session_transaction(self) -> AbstractAsyncContextManager[Session]:
        """Open the session of this browser; what the block changes is saved at its end::

            async with client.session_transaction() as session:
                session["cart"] = ["tea"]

        A visitor's session begins with that. `login` and the other methods of a session work as in a handler.

        Raises:
            SessionError, StoreUnavailable: As in a handler; nothing was saved.
        """
        return self._session.transaction()

    async def user(self) -> str | None:
        """Return who is signed in, or None, as the next request would find it."""
        return (await self._session.load()).user

    async def data(self) -> dict[str, Any]:
        """Return a copy of what the session holds, as the next request would find it."""
        return dict(await self._session.load())

    @property
    def handle(self) -> str | None:
        """The handle of the session, for `sessions.open` and `sessions.revoke`; the session may be over."""
        return self._session.handle

    # --- requests ---

    async def get(self, path: str, **options: Unpack[RequestOptions]) -> Response:
        """GET *path*, which begins with `/` and may have a query."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, data: Fields | None = None, **options: Unpack[BodyOptions]) -> Response:
        """POST the form *data*, or another body with `json=` or `body=`, with a form token."""
        return await self.request("POST", path, data, **options)

    async def put(self, path: str, data: Fields | None = None, **options: Unpack[BodyOptions]) -> Response:
        """PUT; see `post`."""
        return await self.request("PUT", path, data, **options)

    async def patch(self, path: str, data: Fields | None = None, **options: Unpack[BodyOptions]) -> Response:
        """PATCH; see `post`."""
        return await self.request("PATCH", path, data, **options)

    async def delete(self, path: str, data: Fields | None = None, **options: Unpack[BodyOptions]) -> Response:
        """DELETE; see `post`."""
        return await self.request("DELETE", path, data, **options)

    async def request(
        self, method: str, path: str, data: Fields | None = None, **options: Unpack[BodyOptions]
    ) -> Response:
        """Send a request, store the cookies of the response, and return it whatever its status.

        See `RequestOptions` and `BodyOptions` for *options*.

        Raises:
            ValueError: The path does not begin with `/`, there is more than one body, or the redirects have
                no end.
            TypeError: *data* is no mapping, or the value of `json` is no JSON.
        """
        return await self._sender.send(method, path, data, **options)

    async def submit_form(
        self, page: str, data: Fields | None = None, *, follow_redirects: bool = False
    ) -> Response:
        """Open *page*, fill *data* in its form and send it, with the token that the page contains.

        The form is the first one that has a field for each name in *data*. So a template without
        `xsrf_form_html()` fails here, although `post` succeeds.

        Raises:
            ValueError: The page has no such form, or the form leads to another site.
        """
        shown = await self.get(page, follow_redirects=True)
        form = find_form(shown.text, data or {})
        path = self._sender.path_of(form.action, shown.path)
        if path is None:
            raise ValueError("the form leads to another site")
        filled_in = form.filled_in(data or {})
        if form.method == "POST":
            return await self.request(
                "POST", path, filled_in, follow_redirects=follow_redirects, form_token=False
            )
        query = f"?{urlencode(filled_in, doseq=True)}" if filled_in else ""
        return await self.get(path.partition("?")[0] + query, follow_redirects=follow_redirects)

    # --- connections that stay open ---

    @asynccontextmanager
    async def websocket_connect(
        self, path: str, *, headers: Headers | None = None, subprotocols: Sequence[str] | None = None
    ) -> AsyncIterator[WebSocket]:
        """Open a WebSocket with the cookies and the Origin of this browser; the end of the block closes it.

        Raises:
            HTTPClientError: The handshake was refused. Tornado's; `code` is the HTTP status.
        """
        sent = self._sender.headers("GET", path, {"Origin": self._connection.origin, **(headers or {})})
        url = self._connection.base_url.replace("http", "ws", 1) + path
        async with connected(url, sent, subprotocols=subprotocols) as socket:
            self._sender.keep(socket.connection.headers, path)
            yield socket

    @asynccontextmanager
    async def event_stream(
        self, path: str, *, headers: Headers | None = None, timeout_s: float = TIMEOUT_S
    ) -> AsyncIterator[EventStream]:
        """Open a stream of server-sent events; the end of the block closes it. Look at its `code` first.

        Args:
            timeout_s: How long to wait for the response, and for each event.

        Raises:
            TimeoutError: No response began in time.
        """
        sent = self._sender.headers("GET", path, {"Accept": "text/event-stream", **(headers or {})})
        async with opened(self._connection.base_url + path, sent, timeout_s=timeout_s) as stream:
            self._sender.keep(stream.headers, path)
            yield stream
