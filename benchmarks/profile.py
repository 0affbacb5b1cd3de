"""Measure the CPU time of a request by part of the code: `python -m benchmarks.profile`.

Serves handlers with the real `SessionMixin` in this process while another process sends requests, and samples
the running part 1000 times per second of CPU time.
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
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.harness import ROOT, generator
from benchmarks.harness.app import serve_in_loop
from benchmarks.harness.client import start_sessions
from benchmarks.harness.databases import STORES, backend
from benchmarks.harness.loop import run

SESSIONS, CONNECTIONS, ROUNDS = 200, 32, 3
KINDS = ("bare", "read", "write", "login")

# Package, path in it, part; the first match counts. The innermost frame with a match decides.
PARTS = (
    ("stormcellar", "sessions/cookies.py", "cookie"),
    ("stormcellar", "sessions/signing.py", "cookie"),
    ("stormcellar", "sessions/csrf.py", "cookie"),
    ("stormcellar", "web/csrf_mixin.py", "cookie"),
    ("stormcellar.stores", "", "store"),
    ("stormcellar", "", "session"),
    ("redis", "", "store"),
    ("pymongo", "", "store"),
    ("bson", "", "store"),
    ("benchmarks", "", "handler"),
    ("tornado", "web.py", "Tornado's handler"),
    ("tornado", "routing.py", "Tornado's handler"),
    ("tornado", "gen.py", "Tornado's handler"),
    ("tornado", "", "HTTP"),
)
# These functions of the benchmark are not handlers.
_NOT_HANDLERS = ("main", "run", "_measure", "_round")
ORDER = ("HTTP", "Tornado's handler", "cookie", "store", "session", "handler", "event loop")


Rows = dict[str, tuple[float, dict[str, float]]]
"""For each kind of request: CPU time in microseconds, and the share of each part."""


def main() -> None:
    """Measure each kind of request on each store, and print a table."""
    options = _options()
    for store in options.store:
        with backend(store) as url:
            rows = run(_measure(url, options.seconds))
        print(f"\n{store}: microseconds of CPU time per request, {CONNECTIONS} connections")
        print(f"{'':8}" + "".join(f"{part:>19}" for part in (*ORDER, "all")))
        for kind, (request_us, shares) in rows.items():
            values = [request_us * shares.get(part, 0) for part in ORDER]
            print(f"{kind:8}" + "".join(f"{value:19.1f}" for value in (*values, request_us)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.profile", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=STORES, default=["memory"], help="default: memory")
    parser.add_argument("--seconds", type=float, default=5, help="per kind of request (default: 5)")
    return parser.parse_args()


async def _measure(url: str, seconds: float) -> Rows:
    async with serve_in_loop(url) as (port, _):
        # In a thread, because this event loop serves the requests.
        cookies = {kind: await asyncio.to_thread(start_sessions, port, SESSIONS) for kind in KINDS}
        # Several rounds, so that other work on the machine affects all kinds alike.
        rounds = [
            {kind: await _round(port, kind, cookies[kind], seconds / ROUNDS) for kind in KINDS}
            for _ in range(ROUNDS)
        ]
    return {kind: _combine([each[kind] for each in rounds]) for kind in KINDS}


def _combine(rounds: list[tuple[float, Counter[str]]]) -> tuple[float, dict[str, float]]:
    samples = sum((counts for _, counts in rounds), Counter[str]())
    shares = {part: count / samples.total() for part, count in samples.items()}
    return statistics.median(request_us for request_us, _ in rounds), shares


async def _round(port: int, kind: str, cookies: list[str], seconds: float) -> tuple[float, Counter[str]]:
    """Return the CPU time per request in microseconds, and the samples per part."""
    with generator.cookie_file(cookies) as file:
        options: dict[str, Any] = {"connections": CONNECTIONS, "seconds": seconds, "rotates": kind == "login"}
        command = generator.command("python", port, f"/{kind}", file, **options)
        start_s = time.process_time()
        with _sampled_parts() as counts:
            client = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
            output, _ = await client.communicate()
        took_s = time.process_time() - start_s
    sample = generator.parse(output.decode())
    if not sample.is_valid:
        raise SystemExit(f"{sample.failures} of {sample.requests} requests failed")
    return 1e6 * took_s / sample.requests, counts


@contextmanager
def _sampled_parts() -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()

    def count(number: int, frame: FrameType | None) -> None:
        counts[_part_of_stack(frame)] += 1

    before = signal.signal(signal.SIGPROF, count)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    try:
        yield counts
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def path_in(package: str, file: str) -> Path:
    """Return the path of *file* in the folder from which *package* is imported."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations, package
    return Path(spec.submodule_search_locations[0], file)


@cache
def _paths() -> tuple[tuple[Path, str], ...]:
    return tuple((path_in(package, file), part) for package, file, part in PARTS)


@cache
def part_of(file: str) -> str | None:
    """Return the part to which the code in *file* belongs."""
    return next((part for path, part in _paths() if Path(file).is_relative_to(path)), None)


def _part_of_stack(frame: FrameType | None) -> str:
    while frame is not None:
        code = frame.f_code
        if code.co_name not in _NOT_HANDLERS and (part := part_of(code.co_filename)):
            return part
        frame = frame.f_back
    return "event loop"


if __name__ == "__main__":
    main()
