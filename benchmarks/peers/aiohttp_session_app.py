"""aiohttp-session's Redis storage: `python aiohttp_session_app.py redis URL PORT`. Settings: README.md."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web
from aiohttp_session import get_session, new_session, setup
from aiohttp_session.redis_storage import RedisStorage
from redis.asyncio import Redis

TWO_WEEKS_S = 14 * 24 * 3600
PAD = "x" * 270
# The limit of the pool, 100 by default, beyond which it raises an error.
MAX_CONNECTIONS = 2_000
REDIS = web.AppKey("redis", Redis)
STORAGE = web.AppKey("storage", RedisStorage)


async def bare(request: web.Request) -> web.Response:
    """Respond without the session."""
    return web.Response(text="hello")


async def start(request: web.Request) -> web.Response:
    """Start a session."""
    session = await new_session(request)
    session.update({"name": "somebody", "pad": PAD, "user": "somebody"})
    return web.Response(text="somebody")


async def read(request: web.Request) -> web.Response:
    """Respond with the name in the session."""
    session = await get_session(request)
    name = session.get("name")
    return web.Response(text=name) if name else anonymous()


async def write(request: web.Request) -> web.Response:
    """Increment a counter in the session."""
    session = await get_session(request)
    if "name" not in session:
        return anonymous()
    session["count"] = session.get("count", 0) + 1
    return web.Response(text="hello")


async def login(request: web.Request) -> web.Response:
    """Rotate the session ID; the library keeps the old ID valid, so this removes it."""
    old = await get_session(request)
    if "name" not in old:
        return anonymous()
    session = await new_session(request)
    session.update(old)
    session["user"] = "somebody"
    await request.app[REDIS].delete(f"{request.app[STORAGE].cookie_name}_{old.identity}")
    return web.Response(text="hello")


def anonymous() -> web.Response:
    """Refuse a request without a session."""
    return web.Response(text="anonymous", status=401)


def make_app(redis: Redis) -> web.Application:
    """Return the application on *redis*."""
    app = web.Application()
    app[REDIS] = redis
    app[STORAGE] = RedisStorage(redis, max_age=TWO_WEEKS_S, samesite="Lax")
    setup(app, app[STORAGE])
    app.add_routes([web.get(f"/{view.__name__}", view) for view in (bare, start, read, write, login)])
    return app


def main(store: str, url: str, port: str) -> None:
    """Serve until SIGTERM."""
    # run_app calls `print` when it accepts connections.
    web.run_app(
        make_app(Redis.from_url(url, max_connections=MAX_CONNECTIONS)),
        host="127.0.0.1",
        port=int(port),
        access_log=None,
        loop=uvloop.new_event_loop(),
        shutdown_timeout=1,
        print=lambda *_: print("ready", flush=True),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
