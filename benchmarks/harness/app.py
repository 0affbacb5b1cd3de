"""The application that is timed: a few handlers on the real `SessionMixin`, in one process.

    python -m benchmarks.harness.app --store redis://127.0.0.1:6379/0 --port 8000

Prints a line that begins with `ready` once it accepts, and ends on SIGTERM. Its routes, all GET, are those of
every subject, so that one client can ask them all:

    /bare    hello; no session is touched
    /start   signs somebody in, with 300 bytes of data; answers somebody
    /read    the session's name; nothing is written
    /write   counts up, saved before the answer; hello
    /login   signs the same user in again, under another session ID; hello

The last three answer 401 without a session, so that load which lost its cookies is noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from benchmarks.harness.bulk_sessions import DATA, PREFIX, fill
from benchmarks.harness.loop import run
from stormcellar import SessionManager, SessionMixin, session_settings
from stormcellar.runtime.server import make_http_server, tune_garbage_collector
from stormcellar.stores import open_store


class Bare(RequestHandler):
    """Without a session: what every figure is compared with."""

    def get(self) -> None:
        """Answer."""
        self.write("hello")


class Start(SessionMixin, RequestHandler):
    """Signs in `?user=`, or somebody new, with `?keys=` more keys than usual."""

    async def get(self) -> None:
        """Answer who that is."""
        user = self.get_query_argument("user", None) or secrets.token_hex(8)
        more = {f"key{n}": "x" * 20 for n in range(int(self.get_query_argument("keys", "0")))}
        self.session.update({**DATA, **more})
        await self.session.login(user, keep=self.session.keys())
        self.write(self.session["name"])


class Read(SessionMixin, RequestHandler):
    """Looks at one value."""

    def get(self) -> None:
        """Answer who it is."""
        name = self.session.get("name")
        if name is None:
            self.set_status(401)
        self.write(name or "anonymous")


class Write(SessionMixin, RequestHandler):
    """Changes one value."""

    def get(self) -> None:
        """Answer; what was changed is saved before."""
        if self.session.user is None:
            raise HTTPError(401)
        self.session["count"] = self.session.get("count", 0) + 1
        self.write("hello")


class Login(SessionMixin, RequestHandler):
    """What a sign-in does once the password was found right: another session ID, and the user with it."""

    async def get(self) -> None:
        """Answer with the new cookie."""
        if self.session.user is None:
            raise HTTPError(401)
        await self.session.login(self.session.user)
        self.write("hello")


HANDLERS = {"bare": Bare, "start": Start, "read": Read, "write": Write, "login": Login}


def make_app(sessions: SessionManager) -> Application:
    """Return the application, with every safeguard of `session_settings` on and no access log."""
    routes = [(f"/{kind}", handler) for kind, handler in HANDLERS.items()]
    return Application(routes, **session_settings(sessions, log_function=lambda handler: None))


@asynccontextmanager
async def serving(
    url: str, *, port: int = 0, key: bytes | None = None, max_sessions: int = 100_000
) -> AsyncIterator[tuple[int, SessionManager]]:
    """Serve on loopback in the meantime; yields the port and the `SessionManager`."""
    store = open_store(url, prefix=PREFIX, max_sessions=max_sessions)
    sessions = SessionManager(store, secrets=[key or os.urandom(32)])
    await sessions.store.ping()
    http = make_http_server(make_app(sessions))
    sockets = bind_sockets(port, "127.0.0.1")
    http.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1], sessions
    finally:
        http.stop()
        await http.close_all_connections()
        await sessions.aclose()


async def serve(url: str, *, port: int, key: bytes, crowd: int) -> None:
    """Serve until SIGTERM, with *crowd* sessions in the store from the beginning."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serving(url, port=port, key=key, max_sessions=crowd + 100_000) as (_, sessions):
        await fill(sessions.store, crowd, now_ms=sessions.now_ms())
        tune_garbage_collector()  # as the standalone server does
        print("ready", flush=True)
        await stop.wait()


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.harness.app", description="The application that is timed."
    )
    parser.add_argument("--store", default="memory", help="URL (default: memory)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--crowd", type=int, default=0, help="sessions to begin with (default: none)")
    parser.add_argument("--key", default="", help="signing key in hexadecimal (default: a new one)")
    options = parser.parse_args()
    key = bytes.fromhex(options.key)
    run(serve(options.store, port=options.port, key=key, crowd=options.crowd))


if __name__ == "__main__":
    main()
