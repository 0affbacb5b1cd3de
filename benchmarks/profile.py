"""Where the time of a request goes, by part: `python -m benchmarks.profile`.

Serves a handler through the real `SessionMixin` in this process while another sends requests, and looks 1000
times a second of CPU time which part is at work. A regression names its room.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from benchmarks.server import STORES, backend
from server import SessionManager, SessionMixin, session_settings
from server.request import Client, Request
from stores import open_store

ROOT = Path(__file__).resolve().parent.parent
SESSIONS, CONNECTIONS = 200, 32
DATA = {"name": "somebody", "pad": "x" * 270}

# The first that is in a frame's file name says its part; the innermost frame that has one counts.
PARTS = (
    ("/server/cookies.py", "cookie"),
    ("/server/csrf.py", "cookie"),
    ("/server/forms.py", "cookie"),
    ("/server/network.py", "session"),
    ("/server/", "session"),
    ("/stores/", "store"),
    ("/redis/", "store"),
    ("/pymongo/", "store"),
    ("/bson/", "store"),
    ("/benchmarks/", "handler"),
    ("/tornado/web.py", "Tornado's handler"),
    ("/tornado/routing.py", "Tornado's handler"),
    ("/tornado/gen.py", "Tornado's handler"),
    ("/tornado/", "HTTP"),
)
# What drives the measurement is no handler.
_OURS = ("main", "_run", "_measure", "_round")
ORDER = ("HTTP", "Tornado's handler", "cookie", "store", "session", "handler", "event loop")


Rows = dict[str, tuple[float, dict[str, float]]]
"""For each kind of request the microseconds of CPU time, and the share of each part."""


class Bare(RequestHandler):
    """Without a session."""

    def get(self) -> None:
        """Answer."""
        self.write("hello")


class Read(SessionMixin, RequestHandler):
    """Looks at one value."""

    def get(self) -> None:
        """Answer."""
        self.write(self.session["name"])


class Write(SessionMixin, RequestHandler):
    """Changes one value."""

    def get(self) -> None:
        """Answer."""
        self.session["count"] = self.session.get("count", 0) + 1
        self.write("hello")


PATHS = {"bare": Bare, "read": Read, "write": Write}


def main() -> None:
    """Measure each kind of request on each store, and print a table."""
    options = _options()
    for store in options.store:
        with backend(store) as url:
            rows = _run(_measure(url, options.seconds))
        print(f"\n{store}: microseconds of CPU time a request, {CONNECTIONS} connections")
        print(f"{'':8}" + "".join(f"{part:>19}" for part in (*ORDER, "all")))
        for kind, (request_us, shares) in rows.items():
            figures = [request_us * shares.get(part, 0) for part in ORDER]
            print(f"{kind:8}" + "".join(f"{figure:19.1f}" for figure in (*figures, request_us)))


def _run(work: Coroutine[Any, Any, Rows]) -> Rows:
    """Run *work* on the loop that the server uses."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.profile", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=STORES, default=["memory"], help="default: memory")
    parser.add_argument("--seconds", type=float, default=5, help="for each kind of request (default: 5)")
    return parser.parse_args()


async def _measure(url: str, seconds: float) -> Rows:
    sessions = SessionManager(open_store(url, prefix="profile"), secrets=[os.urandom(32)])
    settings = session_settings(sessions, log_function=lambda handler: None)
    http = HTTPServer(Application([(f"/{kind}", handler) for kind, handler in PATHS.items()], **settings))
    sockets = bind_sockets(0, "127.0.0.1")
    http.add_sockets(sockets)
    port, cookies = sockets[0].getsockname()[1], [await _signed_in(sessions, n) for n in range(SESSIONS)]
    try:
        # Each kind in several rounds, so that what else the machine does falls on all of them.
        rounds = [{kind: await _round(port, kind, cookies, seconds / 3) for kind in PATHS} for _ in range(3)]
    finally:
        http.stop()
        await http.close_all_connections()
        await sessions.aclose()
    return {kind: _together([each[kind] for each in rounds]) for kind in PATHS}


def _together(rounds: list[tuple[float, Counter[str]]]) -> tuple[float, dict[str, float]]:
    looks = sum((seen for _, seen in rounds), Counter[str]())
    shares = {part: count / looks.total() for part, count in looks.items()}
    return statistics.median(request_us for request_us, _ in rounds), shares


async def _signed_in(sessions: SessionManager, number: int) -> str:
    session = await sessions.load(None, Request(Client("127.0.0.1", "profile"), is_safe=False))
    session.update(DATA)
    await session.login(f"user{number}", keep=DATA)
    line = _Line()
    assert session.sid is not None
    sessions.cookies.write(line, session.sid)
    return line.text.partition(";")[0]


class _Line:
    text = ""

    def add_header(self, name: str, value: str) -> None:
        self.text = value


async def _round(port: int, kind: str, cookies: list[str], seconds: float) -> tuple[float, Counter[str]]:
    """Return the microseconds of CPU time a request, and how often each part was seen at work."""
    context = multiprocessing.get_context("spawn")
    counted = context.Value("l", 0)
    client = context.Process(target=_send, args=(port, kind, cookies, seconds, counted), daemon=True)
    client.start()
    while counted.value == 0:  # noqa: ASYNC110  until it has connected
        await asyncio.sleep(0.01)
    began, before = time.process_time(), counted.value
    with _looking() as seen:
        while client.is_alive():  # noqa: ASYNC110  the other side is another process
            await asyncio.sleep(0.05)
    return 1e6 * (time.process_time() - began) / (counted.value - before), seen


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


def _send(port: int, kind: str, cookies: list[str], seconds: float, counted: Any) -> None:
    asyncio.run(_send_all(port, kind, cookies, seconds, counted))


async def _send_all(port: int, kind: str, cookies: list[str], seconds: float, counted: Any) -> None:
    requests = [
        f"GET /{kind} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode() for cookie in cookies
    ]
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while loop.time() < until:
            number += CONNECTIONS
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(head.decode("latin1"))
            length = head.partition(b"Content-Length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length))
            counted.value += 1
        writer.close()

    await asyncio.gather(*map(one, range(CONNECTIONS)))


if __name__ == "__main__":
    main()
