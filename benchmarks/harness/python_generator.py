"""A load generator for where there is no wrk: GETs over kept connections, each with one of the cookies.

    python -m benchmarks.harness.python_generator 8000 /read COOKIES [--rotates] [--connections N] ...

Does what `wrk.lua` has wrk do, and prints the same line. Where cookies rotate, a request takes one from the
queue and its response puts the new one at the end; the file then holds what is left.
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
    """What is sent, by all connections together, and what came of it."""

    def __init__(self, port: int, path: str, cookies: list[bytes], *, rotates: bool) -> None:
        self.port = port
        self.path = path
        self.cookies = deque(cookies)
        self.rotates = rotates
        self.took_s: list[float] = []
        self.failures = 0
        self.until_s = 0.0

    def take(self) -> bytes:
        """Return the next request."""
        cookie = self.cookies.popleft()
        if not self.rotates:
            self.cookies.append(cookie)
        head = f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nCookie: ".encode()
        return head + cookie + b"\r\n\r\n"

    def answered(self, head: bytes, took_s: float) -> None:
        """Count a response, and keep the cookie that it brought."""
        self.took_s.append(took_s)
        brought = _COOKIE.search(head) if self.rotates else None
        if not head.startswith(b"HTTP/1.1 200 ") or (self.rotates and not brought):
            self.failures += 1
        elif brought:
            self.cookies.append(brought[1])


class Connection(asyncio.Protocol):
    """One connection, with one request under way at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self._is_over = False
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport: Any = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Send the next request once the response is whole."""
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or (length and len(body) < int(length[1])):
            return
        now_s = time.perf_counter()
        self._load.answered(head if length else b"", now_s - self._sent_s)
        self._received = b""
        if now_s < self._load.until_s:
            self._send()
        else:
            self._is_over = True
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a connection that the server closed."""
        self._load.failures += not self._is_over
        self.ended.set_result(None)

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._load.take())


async def send(load: Load, *, connections: int, seconds: float) -> dict[str, float]:
    """Send *load* for so long, and return what there is to say about it."""
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
    """Return the count, the percentiles and the failures of a *load* that took so long."""
    cuts = statistics.quantiles(load.took_s, n=100) if len(load.took_s) > 1 else [0.0] * 99
    percentiles = {f"p{n}_ms": round(1000 * cuts[n - 1], 3) for n in (50, 90, 99)}
    return {
        "requests": len(load.took_s),
        "seconds": round(seconds, 6),
        **percentiles,
        "failures": load.failures,
    }


def main() -> None:
    """Send as the command line says."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.harness.python_generator", description="A load generator."
    )
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("cookies", type=Path, help="a file of Cookie headers, one a line")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rotates", action="store_true", help="each response brings another cookie")
    options = parser.parse_args()
    cookies = options.cookies.read_bytes().splitlines()
    load = Load(options.port, options.path, cookies, rotates=options.rotates)
    said = run(send(load, connections=options.connections, seconds=options.seconds))
    if options.rotates:
        options.cookies.write_bytes(b"".join(cookie + b"\n" for cookie in load.cookies))
    print(f"RESULT {json.dumps(said)}")


if __name__ == "__main__":
    main()
