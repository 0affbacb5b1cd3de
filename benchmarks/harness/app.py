"""The application under test: a few handlers on the real `SessionMixin`, in one process.

    python -m benchmarks.harness.app --store redis://127.0.0.1:6379/0 --port 8000

Prints a line that begins with `ready` when it accepts connections; ends on SIGTERM. The peers have the same
routes, so one client can test every server. All are GET:

    /bare    hello; does not use the session
    /start   signs a new user in, with 300 bytes of data; responds somebody
    /read    responds the name in the session; writes nothing
    /write   increments a counter, which is saved before the response; hello
    /login   signs the same user in again, with a new session ID; hello

The last three respond 401 without a session, so that load with lost cookies counts as failed.
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

from benchmarks.harness.bulk_sessions import DATA, PREFIX, create_sessions
from benchmarks.harness.loop import run
from stormcellar import SessionManager, SessionMixin, session_settings
from stormcellar.runtime.connections import Connections
from stormcellar.runtime.http_server import LimitedServer
from stormcellar.runtime.server import tune_garbage_collector
from stormcellar.stores import open_store


class Bare(RequestHandler):
    """A handler without a session: the baseline of every comparison."""

    def get(self) -> None:
        """Respond."""
        self.write("hello")


class Start(SessionMixin, RequestHandler):
    """Sign in `?user=`, by default a new user, with `?keys=` additional keys."""

    async def get(self) -> None:
        """Respond with the name in the session."""
        user = self.get_query_argument("user", None) or secrets.token_hex(8)
        more = {f"key{n}": "x" * 20 for n in range(int(self.get_query_argument("keys", "0")))}
        self.session.update({**DATA, **more})
        await self.session.login(user, keep=self.session.keys())
        self.write(self.session["name"])


class Read(SessionMixin, RequestHandler):
    """Read one value."""

    def get(self) -> None:
        """Respond with the name in the session."""
        name = self.session.get("name")
        if name is None:
            self.set_status(401)
        self.write(name or "anonymous")


class Write(SessionMixin, RequestHandler):
    """Change one value."""

    def get(self) -> None:
        """Respond after the change is saved."""
        if self.session.user is None:
            raise HTTPError(401)
        self.session["count"] = self.session.get("count", 0) + 1
        self.write("hello")


class Login(SessionMixin, RequestHandler):
    """Sign in after the password check: bind the user and rotate the session ID."""

    async def get(self) -> None:
        """Respond with the new cookie."""
        if self.session.user is None:
            raise HTTPError(401)
        await self.session.login(self.session.user)
        self.write("hello")


HANDLERS = {"bare": Bare, "start": Start, "read": Read, "write": Write, "login": Login}


def make_app(sessions: SessionManager) -> Application:
    """Return the application, with all protections of `session_settings` and no access log."""
    routes = [(f"/{kind}", handler) for kind, handler in HANDLERS.items()]
    return Application(routes, **session_settings(sessions, log_function=lambda handler: None))


@asynccontextmanager
async def serve_in_loop(
    url: str, *, port: int = 0, key: bytes | None = None, max_sessions: int = 100_000
) -> AsyncIterator[tuple[int, SessionManager]]:
    """Serve on loopback in the running event loop; yield the port and the `SessionManager`."""
    store = open_store(url, prefix=PREFIX, max_sessions=max_sessions)
    sessions = SessionManager(store, secrets=[key or os.urandom(32)])
    await sessions.store.ping()
    http = LimitedServer(make_app(sessions), connections=Connections())
    sockets = bind_sockets(port, "127.0.0.1")
    http.add_sockets(sockets)
    try:
        yield sockets[0].getsockname()[1], sessions
    finally:
        http.stop()
        await http.close_all_connections()
        await sessions.aclose()


async def serve(url: str, *, port: int, key: bytes, session_count: int) -> None:
    """Create *session_count* sessions, then serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve_in_loop(url, port=port, key=key, max_sessions=session_count + 100_000) as (_, sessions):
        await create_sessions(sessions.store, session_count, now_ms=sessions.now_ms())
        tune_garbage_collector()  # as the standalone server does
        print("ready", flush=True)
        await stop.wait()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.harness.app", description="Run the application under test."
    )
    parser.add_argument("--store", default="memory", help="URL (default: memory)")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sessions", type=int, default=0, help="sessions to create first (default: 0)")
    parser.add_argument("--key", default="", help="signing key in hexadecimal (default: a new key)")
    options = parser.parse_args()
    key = bytes.fromhex(options.key)
    run(serve(options.store, port=options.port, key=key, session_count=options.sessions))


if __name__ == "__main__":
    main()
