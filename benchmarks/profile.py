"""Where the time of a request goes, by part: `python -m benchmarks.profile`.

Serves a handler through the real `SessionMixin` in this process while another sends requests, and looks 1000
times a second of CPU time which part is at work. A regression names its room.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from benchmarks.harness import ROOT, generator
from benchmarks.harness.app import serve_in_loop
from benchmarks.harness.client import start_sessions
from benchmarks.harness.databases import STORES, backend
from benchmarks.harness.loop import run

SESSIONS, CONNECTIONS, ROUNDS = 200, 32, 3
KINDS = ("bare", "read", "write", "login")

# The first that is in a frame's file name says its part; the innermost frame that has one counts.
PARTS = (
    ("/sessions/cookies.py", "cookie"),
    ("/sessions/signing.py", "cookie"),
    ("/sessions/csrf.py", "cookie"),
    ("/web/csrf_mixin.py", "cookie"),
    ("/stormcellar/stores/", "store"),
    ("/stormcellar/", "session"),
    ("/site-packages/redis/", "store"),
    ("/pymongo/", "store"),
    ("/bson/", "store"),
    ("/benchmarks/", "handler"),
    ("/tornado/web.py", "Tornado's handler"),
    ("/tornado/routing.py", "Tornado's handler"),
    ("/tornado/gen.py", "Tornado's handler"),
    ("/tornado/", "HTTP"),
)
# What drives the measurement is no handler.
_OURS = ("main", "run", "_measure", "_round")
ORDER = ("HTTP", "Tornado's handler", "cookie", "store", "session", "handler", "event loop")


Rows = dict[str, tuple[float, dict[str, float]]]
"""For each kind of request the microseconds of CPU time, and the share of each part."""


def main() -> None:
    """Measure each kind of request on each store, and print a table."""
    options = _options()
    for store in options.store:
        with backend(store) as url:
            rows = run(_measure(url, options.seconds))
        print(f"\n{store}: microseconds of CPU time a request, {CONNECTIONS} connections")
        print(f"{'':8}" + "".join(f"{part:>19}" for part in (*ORDER, "all")))
        for kind, (request_us, shares) in rows.items():
            figures = [request_us * shares.get(part, 0) for part in ORDER]
            print(f"{kind:8}" + "".join(f"{figure:19.1f}" for figure in (*figures, request_us)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.profile", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=STORES, default=["memory"], help="default: memory")
    parser.add_argument("--seconds", type=float, default=5, help="for each kind of request (default: 5)")
    return parser.parse_args()


async def _measure(url: str, seconds: float) -> Rows:
    async with serve_in_loop(url) as (port, _):
        # Asked from a thread, since it is this loop that answers.
        cookies = {kind: await asyncio.to_thread(start_sessions, port, SESSIONS) for kind in KINDS}
        # Each kind in several rounds, so that what else the machine does falls on all of them.
        rounds = [
            {kind: await _round(port, kind, cookies[kind], seconds / ROUNDS) for kind in KINDS}
            for _ in range(ROUNDS)
        ]
    return {kind: _together([each[kind] for each in rounds]) for kind in KINDS}


def _together(rounds: list[tuple[float, Counter[str]]]) -> tuple[float, dict[str, float]]:
    looks = sum((seen for _, seen in rounds), Counter[str]())
    shares = {part: count / looks.total() for part, count in looks.items()}
    return statistics.median(request_us for request_us, _ in rounds), shares


async def _round(port: int, kind: str, cookies: list[str], seconds: float) -> tuple[float, Counter[str]]:
    """Return the microseconds of CPU time a request, and how often each part was seen at work."""
    with generator.cookie_file(cookies) as file:
        options: dict[str, Any] = {"connections": CONNECTIONS, "seconds": seconds, "rotates": kind == "login"}
        command = generator.command("python", port, f"/{kind}", file, **options)
        began_s = time.process_time()
        with _looking() as seen:
            client = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
            said, _ = await client.communicate()
        took_s = time.process_time() - began_s
    sample = generator.parse(said.decode())
    if not sample.is_valid:
        raise SystemExit(f"{sample.failures} of {sample.requests} requests failed")
    return 1e6 * took_s / sample.requests, seen


@contextmanager
def _looking() -> Iterator[Counter[str]]:
    seen: Counter[str] = Counter()

    def look(number: int, frame: FrameType | None) -> None:
        seen[_part_of(frame)] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    try:
        yield seen
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _part_of(frame: FrameType | None) -> str:
    while frame is not None:
        if frame.f_code.co_name not in _OURS:
            for mark, part in PARTS:
                if mark in frame.f_code.co_filename:
                    return part
        frame = frame.f_back
    return "event loop"


if __name__ == "__main__":
    main()
