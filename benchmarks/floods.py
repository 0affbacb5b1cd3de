"""Measure what floods of connections and requests do to the login server, and to those who use it meanwhile.

Each line: how long `GET /healthz` takes on a new connection, how often it fails (no 200 within two seconds),
the CPU time, memory and log of the server. The login flood shows in their place the page of a user who is
signed in, and how often the owner of an account can sign in where they did before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.harness.login_server import add_account

HOST = "127.0.0.1"
PROBE_EVERY_S = 0.05
PROBE_TIMEOUT_S = 2.0
PASSWORD = secrets.token_urlsafe(12)
HEAD = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@dataclass
class Target:
    """The server under test."""

    port: int
    pid: int
    log: Path

    def cpu_s(self) -> float:
        """Return the CPU time that the server has used."""
        used = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """Return the memory that the server uses now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Figures:
    """What one flood did."""

    times_s: list[float] = field(default_factory=list)
    failures: int = 0

    def text(self) -> str:
        """Return the median, the worst time, and the failures."""
        if not self.times_s:
            return f"none answered, {self.failures} failed"
        median, worst = statistics.median(self.times_s) * 1000, max(self.times_s) * 1000
        count = self.failures + len(self.times_s)
        return f"{median:.1f} ms, worst {worst:.0f} ms, {self.failures} of {count} failed"


Flood = Callable[[Target, float], Awaitable[None]]


async def opened(
    target: Target, seconds: float, *, count: int, sent: bytes = b"", addresses: int = 500
) -> None:
    """Open *count* connections, send the same on each, and keep them; those that end are opened again.

    Args:
        addresses: From how many addresses, none of them that of the probe.
    """
    until = time.monotonic() + seconds

    async def hold(number: int) -> None:
        address = f"127.0.{1 + number % addresses // 250}.{1 + number % addresses % 250}"
        while time.monotonic() < until:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(max(0.01, until - time.monotonic())):
                    reader, writer = await asyncio.open_connection(HOST, target.port, local_addr=(address, 0))
                    try:
                        writer.write(sent)
                        while await reader.read(65_536):
                            pass
                    finally:
                        writer.close()
            await asyncio.sleep(0.05)

    await asyncio.gather(*(hold(number) for number in range(count)))


async def pipelining(target: Target, seconds: float) -> None:
    """Send 20 000 requests at once on each of 50 connections, and never read an answer."""
    until = time.monotonic() + seconds

    async def send() -> None:
        _, writer = await asyncio.open_connection(HOST, target.port, limit=1)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(until - time.monotonic()):
                writer.write(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20_000)
                await writer.drain()
                await asyncio.sleep(seconds)
        writer.transport.abort()

    await asyncio.gather(*(send() for _ in range(50)))


async def request(
    target: Target, head: str, body: str = "", timeout_s: float = PROBE_TIMEOUT_S
) -> tuple[int, str, float]:
    """Send one request on a new connection; return status, session cookie and duration.

    OSError or TimeoutError: no answer.
    """
    began = time.monotonic()
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(HOST, target.port)
        try:
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            common = "Host: localhost\r\nAccept: application/json\r\nConnection: close"
            writer.write(f"{head}\r\n{common}\r\n{length}\r\n{body}".encode())
            answer = (await reader.read(-1)).decode()
        finally:
            writer.close()
    status = re.match(r"HTTP/1\.1 (\d+)", answer)
    if status is None:
        raise ConnectionResetError
    cookie = re.search(r"Set-Cookie: ([^;]+)", answer)
    return int(status[1]), cookie[1] if cookie else "", time.monotonic() - began


async def sign_in(target: Target, name: str, password: str, address: str) -> tuple[int, str, float]:
    """Try to sign in from *address*."""
    body = json.dumps({"username": name, "password": password})
    head = f"POST /login HTTP/1.1\r\nX-Forwarded-For: {address}\r\nContent-Type: application/json"
    return await request(target, head, body, timeout_s=30)


async def login_flood(target: Target, seconds: float) -> None:
    """Guess passwords from an address that is new each time, with 100 clients."""
    until, number = time.monotonic() + seconds, 0

    async def guess() -> None:
        nonlocal number
        while time.monotonic() < until:
            number += 1
            address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            with suppress(OSError, TimeoutError):
                await sign_in(target, f"somebody{number}", "wrong password", address)

    await asyncio.gather(*(guess() for _ in range(100)))


async def probe(target: Target, figures: Figures, head: str, pause_s: float = PROBE_EVERY_S) -> None:
    """Send the same request again and again until cancelled."""
    while True:
        try:
            status, _, took_s = await request(target, head)
        except (OSError, TimeoutError):
            figures.failures += 1
        else:
            figures.times_s.append(took_s)
            figures.failures += status != 200
        await asyncio.sleep(pause_s)


def _run(flood: Flood, target: Target, seconds: float) -> None:
    asyncio.run(flood(target, seconds))


@contextmanager
def apart(flood: Flood, target: Target, seconds: float) -> Iterator[None]:
    """Run a flood in a process of its own until the end of the block, so that the probe is not delayed."""
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(flood, target, seconds + 60))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


async def measure(target: Target, flood: Flood, seconds: float) -> str:
    """Return the line of one flood."""
    figures, cpu_s, logged = Figures(), target.cpu_s(), target.log.stat().st_size
    with apart(flood, target, seconds):
        await asyncio.sleep(2)
        probing = asyncio.ensure_future(probe(target, figures, "GET /healthz HTTP/1.1"))
        await asyncio.sleep(seconds - 2)
        rss_mib = target.rss_mib()
        probing.cancel()
    used_s = target.cpu_s() - cpu_s
    kib = (target.log.stat().st_size - logged) / 1024
    return f"{figures.text()}; {used_s / seconds:.2f} cores, {rss_mib:.0f} MiB, {kib:.0f} KiB of log"


async def measure_sign_ins(target: Target, seconds: float) -> str:
    """Return the line of the login flood: alice was signed in before, and signs in again meanwhile."""
    _, cookie, _ = await sign_in(target, "alice", PASSWORD, "192.0.2.1")
    page = f"GET /session HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\nCookie: {cookie}"
    quiet, busy, owner = Figures(), Figures(), Figures()
    probing = asyncio.ensure_future(probe(target, quiet, page))
    await asyncio.sleep(2)
    probing.cancel()
    with apart(login_flood, target, seconds):
        await asyncio.sleep(2)
        probing = asyncio.ensure_future(probe(target, busy, page))
        for _ in range(8):
            status, _, took_s = await sign_in(target, "alice", PASSWORD, "192.0.2.1")
            owner.failures += status != 200
            owner.times_s += [took_s] if status == 200 else []
        probing.cancel()
    return f"page before {quiet.text()}; during {busy.text()}; the owner {owner.text()}"


BODY_OF_A_MIB = HEAD + b"Content-Length: 1048576\r\n\r\n" + b"x" * 1_048_575
FLOODS: dict[str, tuple[Flood, int]] = {
    "idle": (partial(opened, count=1500), 1024),
    "idle, of one": (partial(opened, count=1500, addresses=1), 1024),
    "slow heads": (partial(opened, count=1500, sent=HEAD), 1024),
    "slow bodies": (partial(opened, count=1500, sent=HEAD + b"Content-Length: 100\r\n\r\n{"), 1024),
    "2000 idle": (partial(opened, count=2000), 20_000),
    "body flood": (partial(opened, count=400, sent=BODY_OF_A_MIB), 20_000),
    "pipelining": (pipelining, 20_000),
}
"""Each with the limit of descriptors that its server has."""


def serve(directory: Path, descriptors: int, *options: str) -> tuple[subprocess.Popen[str], Target]:
    """Start a server that can open so many descriptors."""
    log = directory / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "run.py", "--port=0", f"--data-dir={directory}", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
        )
    assert process.stdout is not None
    found = re.search(r":(\d+),", process.stdout.readline())
    assert found is not None, log.read_text()
    return process, Target(int(found[1]), process.pid, log)


def main() -> int:
    """Print a line for each flood."""
    parser = argparse.ArgumentParser(prog="benchmarks.floods", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each flood (default: 6)")
    parser.add_argument("--only", choices=[*FLOODS, "logins"], nargs="*", default=[*FLOODS, "logins"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        add_account("alice", PASSWORD, name)
        for flood in options.only:
            given = ("--behind-proxy=127.0.0.1/32",) if flood == "logins" else ()
            process, target = serve(directory, FLOODS.get(flood, (None, 4096))[1], *given)
            try:
                work = (
                    measure_sign_ins(target, options.seconds)
                    if flood == "logins"
                    else measure(target, FLOODS[flood][0], options.seconds)
                )
                print(f"{flood:13} {asyncio.run(work)}", flush=True)
            finally:
                process.kill()
                process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
