"""A load generator in Python, used where wrk is not installed: GET requests over persistent connections.

    python -m benchmarks.harness.python_generator 8000 /read COOKIES [--rotates] [--connections N] ...

Sends the same requests as wrk with `wrk.lua` and prints the same RESULT line. With --rotates a request takes
a cookie from the head of the queue and its response appends the new cookie; at the end the file holds the
queue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import time
from collections import deque
from pathlib import Path
from typing import Any

from benchmarks.harness.loop import run

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_COOKIE = re.compile(rb"\r\nset-cookie: *([^;\r]+)", re.I)


class Load:
    """The requests and results of all connections together."""

    def __init__(self, port: int, path: str, cookies: list[bytes], *, rotates: bool) -> None:
        self.port = port
        self.path = path
        self.cookies = deque(cookies)
        self.rotates = rotates
        self.took_s: list[float] = []
        self.failures = 0
        self.until_s = 0.0

    def next_request(self) -> bytes:
        """Return the next request."""
        cookie = self.cookies.popleft()
        if not self.rotates:
            self.cookies.append(cookie)
        head = f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nCookie: ".encode()
        return head + cookie + b"\r\n\r\n"

    def record_response(self, head: bytes, took_s: float) -> None:
        """Count a response; with rotation, append its cookie to the queue."""
        self.took_s.append(took_s)
        new_cookie = _COOKIE.search(head) if self.rotates else None
        if not head.startswith(b"HTTP/1.1 200 ") or (self.rotates and not new_cookie):
            self.failures += 1
        elif new_cookie:
            self.cookies.append(new_cookie[1])


class Connection(asyncio.Protocol):
    """One connection, with one pending request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self._is_done = False
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport: Any = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Send the next request when the response is complete."""
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or (length and len(body) < int(length[1])):
            return
        now_s = time.perf_counter()
        self._load.record_response(head if length else b"", now_s - self._sent_s)
        self._received = b""
        if now_s < self._load.until_s:
            self._send()
        else:
            self._is_done = True
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that the server closed."""
        self._load.failures += not self._is_done
        self.ended.set_result(None)

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._load.next_request())


async def send(load: Load, *, connections: int, seconds: float) -> dict[str, float]:
    """Send *load* for *seconds*; return the summary."""
    loop = asyncio.get_running_loop()
    began_s = time.perf_counter()
    load.until_s = began_s + seconds
    opened = [
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", load.port)
        for _ in range(connections)
    ]
    await asyncio.wait([protocol.ended for _, protocol in opened], timeout=seconds + 10)
    for transport, protocol in opened:
        load.failures += not protocol.ended.done()
        transport.abort()
    return summary(load, time.perf_counter() - began_s)


def summary(load: Load, seconds: float) -> dict[str, float]:
    """Return number of requests, percentiles and failures of *load*, which took *seconds*."""
    cuts = statistics.quantiles(load.took_s, n=100) if len(load.took_s) > 1 else [0.0] * 99
    percentiles = {f"p{n}_ms": round(1000 * cuts[n - 1], 3) for n in (50, 90, 99)}
    return {
        "requests": len(load.took_s),
        "seconds": round(seconds, 6),
        **percentiles,
        "failures": load.failures,
    }


def main() -> None:
    """Send load and print the RESULT line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.harness.python_generator",
        description="Send GETs over persistent connections.",
    )
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("cookies", type=Path, help="file of Cookie headers, one per line")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rotates", action="store_true", help="each response sets a new cookie")
    options = parser.parse_args()
    cookies = options.cookies.read_bytes().splitlines()
    load = Load(options.port, options.path, cookies, rotates=options.rotates)
    result = run(send(load, connections=options.connections, seconds=options.seconds))
    if options.rotates:
        options.cookies.write_bytes(b"".join(cookie + b"\n" for cookie in load.cookies))
    print(f"RESULT {json.dumps(result)}")


if __name__ == "__main__":
    main()
