"""Commands to one Redis server itself, past every network that can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis import asyncio as aioredis

from tests.support.backends import Server

WAIT_S = 30.0


async def order(server: Server, *command: str | int) -> Any:
    """Send one command to *server*; return the reply as text, or what redis-py makes of it."""
    async with aioredis.Redis(port=server.port, protocol=2, decode_responses=True) as admin:
        return await admin.execute_command(*command)


async def info(server: Server, section: str) -> dict[str, Any]:
    """Return what *server* says of itself."""
    state: dict[str, Any] = await order(server, "INFO", section)
    return state


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *holds*, at most some seconds."""
    async with asyncio.timeout(WAIT_S):
        while not await holds():  # noqa: ASYNC110  the other side is another process
            await asyncio.sleep(0.05)


async def follow(replica: Server, primary: Server, *, port: int | None = None) -> None:
    """Make *replica* follow *primary*, at another *port* if given, and wait until it has all data."""

    async def is_linked() -> bool:
        return (await info(replica, "replication")).get("master_link_status") == "up"

    await order(replica, "REPLICAOF", "127.0.0.1", port or primary.port)
    await until(is_linked)
