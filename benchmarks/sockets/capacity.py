"""What very many sockets of one process cost: memory, CPU time of the regular checks, longest block."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack

from benchmarks.harness.bulk_sessions import cookie_headers
from benchmarks.harness.loop import run
from benchmarks.sockets.client import Requests, open_sockets
from benchmarks.sockets.endings import open_many, sign_out
from benchmarks.sockets.servers import new_key, running_apps, running_store
from benchmarks.sockets.site import Site

KINDS = {"plain": False, "visitor": False, "socket": True}
"""Each route of a socket, and whether its client has a session."""
FIRST = 100
"""Sockets that are opened before the measurement: they load modules and fill caches."""
DESCRIPTORS = 200
"""For all that is no socket."""
MANY = 1000
PATIENCE_S = 30.0

Figures = dict[str, float]


def require_descriptors(sockets: int, limit: int) -> None:
    """Raise SystemExit if *limit*, of open files, is too low for so many sockets."""
    if sockets + MANY + DESCRIPTORS > limit:
        most = limit - MANY - DESCRIPTORS
        raise SystemExit(f"{sockets} sockets need a higher `ulimit -Hn` than {limit}: try --many {most}")


def measure(store: str, count: int, *, every_s: float) -> Figures:
    """Return what *count* sockets of one process cost, with checks each *every_s*."""
    figures: Figures = {}
    for kind in KINDS:
        figures |= run_with_sockets(store, count, kind, every_s)
    return figures


def run_with_sockets(store: str, count: int, kind: str, every_s: float) -> Figures:
    """Measure sockets of one kind, in a new process."""
    key = new_key()
    cookies = cookie_headers(range(count), key=key) if KINDS[kind] else [""] * count
    options = (f"--sessions={count}", f"--recheck-s={every_s}")
    with running_store(store) as url, running_apps(store, url, 1, *options, key=key) as [app]:
        return run(_measure(app.port, kind, cookies, every_s))


async def _measure(port: int, kind: str, cookies: Sequence[str], every_s: float) -> Figures:
    async with AsyncExitStack() as stack:
        site = await Site.connect(stack, [port])
        [requests] = site.requests
        sockets = await open_sockets(port, f"/{kind}", cookies[:FIRST])
        before = await usage(requests)
        sockets += await open_sockets(port, f"/{kind}", cookies[FIRST:])
        await asyncio.sleep(2.0)  # the check of each new session
        after = await usage(requests)
        opened = len(cookies) - FIRST
        figures = {
            f"{kind}_bytes": (after["rss_bytes"] - before["rss_bytes"]) / opened,
            f"{kind}_open_us": 1e6 * (after["cpu_s"] - before["cpu_s"]) / opened,
        }
        if KINDS[kind]:
            figures |= await _checks(requests, every_s) | await _sign_out(site, min(MANY, len(cookies)))
        figures["closed"] = sum(each.closed_s is not None for each in sockets)
        for each in sockets:
            each.abort()
        return figures


async def _checks(requests: Requests, every_s: float) -> Figures:
    """Measure the regular checks: two intervals for the CPU time, one and a half for the longest block."""
    before = await usage(requests)
    await asyncio.sleep(2 * every_s)
    after = await usage(requests, block=True)
    await asyncio.sleep(1.5 * every_s)
    found = await usage(requests)
    return {
        "check_share": (after["cpu_s"] - before["cpu_s"]) / (2 * every_s),
        "check_block_ms": found["block_ms"],
    }


async def _sign_out(site: Site, count: int) -> Figures:
    """Measure the end of *count* more sessions, all of one user, by one request."""
    [requests] = site.requests
    opened, cookie = await open_many(site, count)
    await usage(requests, block=True)
    outcome = await sign_out(site, opened, cookie, patience_s=PATIENCE_S)
    found = await usage(requests)
    if outcome.lost:
        raise RuntimeError(f"{outcome.lost} of {count} sockets are open after the end of their sessions")
    return {"signed_out": count, "everywhere_block_ms": found["block_ms"]}


async def usage(requests: Requests, *, block: bool = False) -> Figures:
    """Return what the process uses; the longest block since the last call, if that asked for it."""
    found: Figures = json.loads((await requests.get(f"/usage?block={int(block)}")).body)
    return found
