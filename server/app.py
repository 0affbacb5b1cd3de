"""The wiring: the only place that knows every part of the standalone server."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.web import Application

from server import logs
from server.accounts import AccountDirectory
from server.config import Settings
from server.handlers import account, base, operations, session, signin, static
from server.handlers.context import Context
from server.manager import SessionManager
from server.mixin import session_settings

log = logging.getLogger("stormcellar")

DRAIN_S = 10.0
_HERE = Path(__file__).parent


def make_app(manager: SessionManager, context: Context) -> Application:
    """Return the application of the standalone server."""
    given = {"context": context}
    return Application(
        [
            ("/", account.Home, given),
            ("/login", signin.Login, given),
            ("/logout", signin.Logout, given),
            ("/session", session.SessionData, given),
            ("/session/increment", session.Increment, given),
            ("/account/sessions", account.Sessions, given),
            ("/account/sessions/revoke-others", account.RevokeOthers, given),
            ("/account/sessions/([A-Za-z0-9_-]{1,64})/revoke", account.Revoke, given),
            ("/healthz", operations.Health, given),
            ("/readyz", operations.Ready, {**given, "store": manager.store}),
        ],
        **session_settings(
            manager,
            default_handler_class=base.NotFound,
            default_handler_args=given,
            template_path=str(_HERE / "templates"),
            static_path=str(_HERE / "static"),
            static_handler_class=static.Static,
            log_function=logs.log_request,
        ),
    )


def make_http_server(app: Application) -> HTTPServer:
    """Return a server of *app* that takes no more, and waits no longer, than a sign-in or a session needs."""
    return HTTPServer(
        app,
        # Four times what a handler takes: up to here the answer can say what is wrong.
        max_body_size=1024 * 1024,
        max_header_size=16 * 1024,
        idle_connection_timeout=30,
        body_timeout=20,
    )


class Server:
    """One process of the standalone server.

    Args:
        accounts: Who may sign in.
        keys: What signs the cookies; see `server.keys`.
    """

    def __init__(self, settings: Settings, *, accounts: AccountDirectory, keys: list[str]) -> None:
        self.sessions = SessionManager(
            settings.open_store(),
            secrets=keys,
            lifetime=settings.lifetime,
            secure=settings.secure,
            cookie_name=settings.cookie_name,
            accounts=accounts,
        )
        self.context = Context(accounts, settings.carry, settings.behind_proxy)
        self._http = make_http_server(make_app(self.sessions, self.context))

    async def run(self, sockets: list[socket.socket], stop: asyncio.Event) -> None:
        """Serve until *stop* is set, then finish what is in flight."""
        self._http.add_sockets(sockets)
        await stop.wait()
        await self.drain()

    async def drain(self) -> None:
        """Stop accepting, finish the requests and commits in flight, close."""
        self._http.stop()
        await _in_time("finish the requests in flight", self.context.in_flight.drain())
        await _in_time("close the connections", self._http.close_all_connections())
        await _in_time("close the store", self.sessions.aclose())


async def _in_time(what: str, work: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            await work
    except TimeoutError:
        log.warning("could not %s within %.0f s", what, DRAIN_S)
