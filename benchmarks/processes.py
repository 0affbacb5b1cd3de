"""What a second process brings, and who gets the connections: `python -m benchmarks.processes`. Needs wrk.

The load generator must not compete with what it measures. So each server process is let run for three tenths
of the time only, one after the other (SIGSTOP, SIGCONT): on two cores one is always left for wrk and Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from benchmarks.harness.databases import backend
from benchmarks.harness.login_server import RUN, add_account, cpu_time_s, run_server
from stormcellar.runtime.process_group import shared_socket
from tests.support.running import children_of

SHARE, PERIOD_S = 0.3, 0.02
CONNECTIONS = 32
PASSWORD = "a password for benchmarks"
WAYS = ("Tornado's", "a few at a time", "SO_REUSEPORT")
WORK_S = 0.000_15
"""What a request costs beside Tornado where only the connections are looked at."""


def main() -> None:
    """Print both."""
    options = _options()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed")
    rates = throughput(rounds=options.rounds, seconds=options.seconds)
    print(f"GET /session, Redis, {CONNECTIONS} connections, each process {SHARE:.0%} of the time; requests/s")
    for count, found in rates.items():
        of = [rate for rate, _ in found]
        cost_us = statistics.median(cost_us for _, cost_us in found)
        rates_say = f"{statistics.median(of):7.0f} ({min(of):.0f}-{max(of):.0f})"
        print(f"{count}: {rates_say}, {cost_us:.0f} us of CPU time each")
    ratios = [two[0] / one[0] for one, two in zip(rates[1], rates[2], strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})\n")
    print(f"{'processes':>9}{'open':>6}  {'way':17}{'connections of each':24}{'p50, ms':>9}{'p99, ms':>9}")
    for count, opened, way, each, p50_ms, p99_ms in connections(seconds=options.seconds):
        print(f"{count:9}{opened:6}  {way:17}{', '.join(map(str, each)):24}{p50_ms:9.1f}{p99_ms:9.1f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.processes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of one and two processes in turn (default: 5)")
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default: 2)")
    return parser.parse_args()


# --- one process and two ---


def throughput(*, rounds: int = 5, seconds: int = 2) -> dict[int, list[tuple[float, float]]]:
    """Return, for the standalone server with one process and with two, what each round brought.

    That is requests a second, and the microseconds of CPU time that each took.
    """
    rates: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as directory, backend("redis") as url:
        add_account("alice", PASSWORD, f"{directory}/data")
        with _serving(1, url, directory) as one, _serving(2, url, directory) as two:
            for _ in range(rounds):
                for count, (pids, port, cookie) in ((1, one), (2, two)):
                    before_s = sum(map(cpu_time_s, pids))
                    with _slowed(pids):
                        rate = _wrk(port, "/session", CONNECTIONS, seconds, cookie)["rate"]
                    cost_s = (sum(map(cpu_time_s, pids)) - before_s) / (rate * seconds)
                    rates[count].append((rate, 1e6 * cost_s))
    return rates


@contextmanager
def _serving(count: int, url: str, directory: str) -> Iterator[tuple[list[int], int, str]]:
    flags = (f"--processes={count}", f"--store={url}", "--port=0", "--log-level=warning")
    command = [*RUN, *flags, f"--data-dir={directory}/data", f"--audit-log={directory}/audit.log"]
    with run_server(command, directory) as (process, port):
        cookie = _signed_in(port)
        yield ([process.pid] if count == 1 else children_of(process.pid)), port, cookie


def _signed_in(port: int) -> str:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        body = json.dumps({"username": "alice", "password": PASSWORD})
        connection.request("POST", "/login", body, headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"the sign-in was answered {answer.status}")
        return (answer.getheader("Set-Cookie") or "").partition(";")[0]


@contextmanager
def _slowed(pids: Sequence[int]) -> Iterator[None]:
    """Let each of *pids* run for its share of the time only, no two at once."""
    over = threading.Event()

    def take_turns() -> None:
        while not over.is_set():
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
                time.sleep(PERIOD_S * SHARE)
                os.kill(pid, signal.SIGSTOP)
                time.sleep(PERIOD_S * (1 / len(pids) - SHARE))

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _wrk(port: int, path: str, opened: int, seconds: int, cookie: str = "") -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{opened}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    headers = ["-H", "Accept: application/json", *(["-H", f"Cookie: {cookie}"] if cookie else [])]
    url = f"http://127.0.0.1:{port}{path}"
    said = subprocess.run([*command, *headers, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise SystemExit(said)
    rate = float(re.findall(r"Requests/sec: +([\d.]+)", said)[0])
    return {"rate": rate, "p50_ms": _percentile_ms(said, 50), "p99_ms": _percentile_ms(said, 99)}


def _percentile_ms(said: str, percent: int) -> float:
    number, unit = re.findall(rf"{percent}% +([\d.]+)(us|ms|s)\b", said)[0]
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


# --- who gets the connections ---


class Hello(RequestHandler):
    """Takes as long as a session."""

    def get(self) -> None:
        """Answer."""
        until = time.perf_counter() + WORK_S
        while time.perf_counter() < until:
            pass
        self.write("hello")


class Counting(HTTPServer):
    """Counts its connections."""

    count = 0

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Count one more."""
        self.count += 1
        super().handle_stream(stream, address)


def connections(*, seconds: int = 2) -> Iterator[tuple[int, int, str, list[int], float, float]]:
    """Yield processes, connections opened, the way to share them, how many each process got, p50 and p99."""
    for count in (2, 4):
        for opened in (32, 100, 1000):
            for way in WAYS:
                with _listening(count, way) as (port, got):
                    found = _wrk(port, "/", opened, seconds)
                yield count, opened, way, sorted(got), found["p50_ms"], found["p99_ms"]


@contextmanager
def _listening(count: int, way: str) -> Iterator[tuple[int, list[int]]]:
    """Serve from so many processes in the meantime; at the end the list says what each got."""
    sockets = _sockets(count, way)
    read, write = os.pipe()
    pids = [_forked(each, write) for each in sockets]
    got: list[int] = []
    try:
        yield sockets[0].getsockname()[1], got
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for pid in pids:
            os.waitpid(pid, 0)
        got += [int(line) for line in os.read(read, 4096).split()]
        for descriptor in (read, write):
            os.close(descriptor)
        for each in sockets:
            each.close()


def _sockets(count: int, way: str) -> list[socket.socket]:
    [first] = bind_sockets(0, "127.0.0.1", reuse_port=way == "SO_REUSEPORT")
    if way == "SO_REUSEPORT":
        port = first.getsockname()[1]
        return [first, *(bind_sockets(port, "127.0.0.1", reuse_port=True)[0] for _ in range(count - 1))]
    return [shared_socket(first)] * count if way == "a few at a time" else [first] * count


def _forked(listening: socket.socket, write: int) -> int:
    if pid := os.fork():
        return pid
    try:
        got = asyncio.run(_count(listening))
        os.write(write, f"{got}\n".encode())
    finally:
        os._exit(0)


async def _count(listening: socket.socket) -> int:
    server = Counting(Application([("/", Hello)], log_function=lambda handler: None))
    server.add_sockets([listening])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    return server.count


if __name__ == "__main__":
    main()
