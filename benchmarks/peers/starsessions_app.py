"""starsessions on Starlette and uvicorn: `python starsessions_app.py STORE URL PORT`. Settings: README.md."""

from __future__ import annotations

import socket
import sys

import uvicorn
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starsessions import InMemoryStore, SessionMiddleware, SessionStore, load_session
from starsessions.session import get_session_id, regenerate_session_id
from starsessions.stores.redis import RedisStore

TWO_WEEKS_S = 14 * 24 * 3600
PAD = "x" * 270
# The limit of the pool, 100 by default, beyond which it raises an error.
MAX_CONNECTIONS = 2_000


class ReadyServer(uvicorn.Server):
    """Prints `ready` when it accepts connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then print `ready`."""
        await super().startup(sockets)
        print("ready", flush=True)


async def bare(request: Request) -> Response:
    """Respond without the session."""
    return PlainTextResponse("hello")


async def start(request: Request) -> Response:
    """Start a session."""
    await load_session(request)
    request.session.update({"name": "somebody", "pad": PAD, "user": "somebody"})
    return PlainTextResponse("somebody")


async def read(request: Request) -> Response:
    """Respond with the name in the session."""
    await load_session(request)
    name = request.session.get("name")
    return PlainTextResponse(name) if name else anonymous()


async def write(request: Request) -> Response:
    """Increment a counter in the session."""
    await load_session(request)
    if "name" not in request.session:
        return anonymous()
    request.session["count"] = request.session.get("count", 0) + 1
    return PlainTextResponse("hello")


async def login(request: Request) -> Response:
    """Rotate the session ID; the library keeps the old ID valid, so this removes it."""
    await load_session(request)
    if "name" not in request.session:
        return anonymous()
    old_id = get_session_id(request)
    regenerate_session_id(request)
    await request.app.state.store.remove(old_id)
    request.session["user"] = "somebody"
    return PlainTextResponse("hello")


def anonymous() -> Response:
    """Refuse a request without a session."""
    return PlainTextResponse("anonymous", status_code=401)


def make_app(store: SessionStore) -> Starlette:
    """Return the application on *store*."""
    # The requests come over plain HTTP.
    sessions = Middleware(SessionMiddleware, store=store, lifetime=TWO_WEEKS_S, cookie_https_only=False)
    routes = [Route(f"/{view.__name__}", view) for view in (bare, start, read, write, login)]
    app = Starlette(routes=routes, middleware=[sessions])
    app.state.store = store
    return app


def main(store: str, url: str, port: str) -> None:
    """Serve until SIGTERM."""
    chosen = (
        InMemoryStore()
        if store == "memory"
        else RedisStore(connection=Redis.from_url(url, max_connections=MAX_CONNECTIONS))
    )
    config = uvicorn.Config(
        make_app(chosen),
        port=int(port),
        loop="uvloop",
        http="httptools",
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    ReadyServer(config).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
