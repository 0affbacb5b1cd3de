"""Measure the gain of a second process and who gets connections: `python -m benchmarks.processes`.

Needs wrk. The load generator must not compete with the servers for CPU time. So SIGSTOP and SIGCONT let each
server process run 30 % of the time, one after the other: of two cores one is always free for wrk and Redis.
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
METHODS = ("Tornado's", "a few at a time", "SO_REUSEPORT")
WORK_S = 0.000_15
"""CPU time of a request's handler when only the connections are measured."""


def main() -> None:
    """Print both measurements."""
    options = _options()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed")
    rates = throughput(rounds=options.rounds, seconds=options.seconds)
    print(f"GET /session, Redis, {CONNECTIONS} connections, each process {SHARE:.0%} of the time; requests/s")
    for count, samples in rates.items():
        values = [rate for rate, _ in samples]
        cpu_us = statistics.median(cpu_us for _, cpu_us in samples)
        spread = f"{statistics.median(values):7.0f} ({min(values):.0f}-{max(values):.0f})"
        print(f"{count}: {spread}, {cpu_us:.0f} us of CPU time per request")
    ratios = [two[0] / one[0] for one, two in zip(rates[1], rates[2], strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})\n")
    print(
        f"{'processes':>9}{'open':>6}  {'method':17}{'connections per process':24}{'p50 ms':>9}{'p99 ms':>9}"
    )
    for count, opened, method, each, p50_ms, p99_ms in connections(seconds=options.seconds):
        print(f"{count:9}{opened:6}  {method:17}{', '.join(map(str, each)):24}{p50_ms:9.1f}{p99_ms:9.1f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.processes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="each with one and two processes (default: 5)")
    parser.add_argument("--seconds", type=int, default=2, help="per measurement (default: 2)")
    return parser.parse_args()


# --- one process and two ---


def throughput(*, rounds: int = 5, seconds: int = 2) -> dict[int, list[tuple[float, float]]]:
    """Return the results of each round for the login server with one process and with two.

    A result is the number of requests per second and the CPU time per request in microseconds.
    """
    rates: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as directory, backend("redis") as url:
        add_account("alice", PASSWORD, f"{directory}/data")
        with _login_server(1, url, directory) as one, _login_server(2, url, directory) as two:
            for _ in range(rounds):
                for count, (pids, port, cookie) in ((1, one), (2, two)):
                    before_s = sum(map(cpu_time_s, pids))
                    with _limited_cpu(pids):
                        rate = _wrk(port, "/session", CONNECTIONS, seconds, cookie)["rate"]
                    used_s = (sum(map(cpu_time_s, pids)) - before_s) / (rate * seconds)
                    rates[count].append((rate, 1e6 * used_s))
    return rates


@contextmanager
def _login_server(count: int, url: str, directory: str) -> Iterator[tuple[list[int], int, str]]:
    flags = (f"--processes={count}", f"--store={url}", "--port=0", "--log-level=warning")
    command = [*RUN, *flags, f"--data-dir={directory}/data", f"--audit-log={directory}/audit.log"]
    with run_server(command, directory) as (process, port):
        cookie = _sign_in(port)
        yield ([process.pid] if count == 1 else children_of(process.pid)), port, cookie


def _sign_in(port: int) -> str:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        body = json.dumps({"username": "alice", "password": PASSWORD})
        connection.request("POST", "/login", body, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"POST /login returned {response.status}")
        lines = response.headers.get_all("Set-Cookie") or []
        return next(line.partition(";")[0] for line in lines if line.startswith("id="))


@contextmanager
def _limited_cpu(pids: Sequence[int]) -> Iterator[None]:
    """Let each of *pids* run for its share of the time, never two at once."""
    is_done = threading.Event()

    def alternate() -> None:
        while not is_done.is_set():
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
                time.sleep(PERIOD_S * SHARE)
                os.kill(pid, signal.SIGSTOP)
                time.sleep(PERIOD_S * (1 / len(pids) - SHARE))

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    thread = threading.Thread(target=alternate)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _wrk(port: int, path: str, opened: int, seconds: int, cookie: str = "") -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{opened}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    headers = ["-H", "Accept: application/json", *(["-H", f"Cookie: {cookie}"] if cookie else [])]
    url = f"http://127.0.0.1:{port}{path}"
    output = subprocess.run([*command, *headers, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output:
        raise SystemExit(output)
    rate = float(re.findall(r"Requests/sec: +([\d.]+)", output)[0])
    return {"rate": rate, "p50_ms": _percentile_ms(output, 50), "p99_ms": _percentile_ms(output, 99)}


def _percentile_ms(output: str, percent: int) -> float:
    number, unit = re.findall(rf"{percent}% +([\d.]+)(us|ms|s)\b", output)[0]
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


# --- distribution of connections ---


class Hello(RequestHandler):
    """Uses as much CPU time as a session."""

    def get(self) -> None:
        """Respond."""
        until = time.perf_counter() + WORK_S
        while time.perf_counter() < until:
            pass
        self.write("hello")


class CountingServer(HTTPServer):
    """Counts its connections."""

    count = 0

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Count the connection."""
        self.count += 1
        super().handle_stream(stream, address)


def connections(*, seconds: int = 2) -> Iterator[tuple[int, int, str, list[int], float, float]]:
    """Yield processes, open connections, method, connections of each process, p50 and p99."""
    for count in (2, 4):
        for opened in (32, 100, 1000):
            for method in METHODS:
                with _serve(count, method) as (port, received):
                    found = _wrk(port, "/", opened, seconds)
                yield count, opened, method, sorted(received), found["p50_ms"], found["p99_ms"]


@contextmanager
def _serve(count: int, method: str) -> Iterator[tuple[int, list[int]]]:
    """Serve with *count* processes; at the end the list holds the connections of each process."""
    sockets = _sockets(count, method)
    read, write = os.pipe()
    pids = [_fork(each, write) for each in sockets]
    received: list[int] = []
    try:
        yield sockets[0].getsockname()[1], received
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for pid in pids:
            os.waitpid(pid, 0)
        received += [int(line) for line in os.read(read, 4096).split()]
        for descriptor in (read, write):
            os.close(descriptor)
        for each in sockets:
            each.close()


def _sockets(count: int, method: str) -> list[socket.socket]:
    [first] = bind_sockets(0, "127.0.0.1", reuse_port=method == "SO_REUSEPORT")
    if method == "SO_REUSEPORT":
        port = first.getsockname()[1]
        return [first, *(bind_sockets(port, "127.0.0.1", reuse_port=True)[0] for _ in range(count - 1))]
    return [shared_socket(first)] * count if method == "a few at a time" else [first] * count


def _fork(listening: socket.socket, write: int) -> int:
    if pid := os.fork():
        return pid
    try:
        received = asyncio.run(_count(listening))
        os.write(write, f"{received}\n".encode())
    finally:
        os._exit(0)


async def _count(listening: socket.socket) -> int:
    server = CountingServer(Application([("/", Hello)], log_function=lambda handler: None))
    server.add_sockets([listening])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    return server.count


if __name__ == "__main__":
    main()
