"""A server whose network to the store stalls and breaks, while its process is stopped now and then.

    python -m tests.stores.mongo.stalls --cycles 30                               # two minutes
    python -m tests.stores.mongo.stalls --cycles 30 --store-timeout 0.4 --longest-stop 0.3
    python -m tests.stores.mongo.stalls --cycles 30 --store redis8

Prints a table; the exit status is 1 if the server does not serve as before once all is quiet again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from stormcellar.stores.conformance.faults import Network
from tests.support.backends import KINDS, Server
from tests.support.running import Running

JSON = "application/json"
CLIENTS = 10
QUIET_S = 5.0
# A request makes up to three store calls one after another. The rest is for a busy machine.
CALLS, LATE_S = 3, 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens: times in seconds."""

    store: str = "mongo"
    cycles: int = 30
    store_timeout: float = 2.0
    longest_stop: float = 0.7
    seed: int = 0

    @property
    def budget(self) -> float:
        """How long a request may take while the server itself is not stopped."""
        return CALLS * self.store_timeout + LATE_S


@dataclass(slots=True)
class Report:
    """What clients were told, by status; 599 is no answer."""

    during: Counter[int] = field(default_factory=Counter)
    after: Counter[int] = field(default_factory=Counter)
    longest_s: float = 0.0
    longest_after_s: float = 0.0
    ready: int = 0
    lost_locks: int = 0
    tracebacks: int = 0

    @property
    def is_well(self) -> bool:
        """Whether the server serves as before."""
        is_honest = set(self.during) <= {200, 503} and not self.tracebacks
        return set(self.after) == {200} and self.ready == 200 and not self.lost_locks and is_honest


class Client:
    """A visitor who writes and reads, and begins anew now and then."""

    def __init__(self, base: str, http: AsyncHTTPClient, budget_s: float) -> None:
        self._base = base
        self._http = http
        self._budget_s = budget_s
        self._cookie = ""

    async def request(self, method: str, path: str, body: str | None = None) -> tuple[int, float]:
        """Return the status, and how long it took."""
        begun = time.monotonic()
        try:
            response = await self._http.fetch(
                self._base + path,
                method=method,
                body=body,
                headers={"Accept": JSON, "Content-Type": JSON, "Cookie": self._cookie},
                request_timeout=self._budget_s,
                raise_error=False,
            )
        except (OSError, HTTPError):
            return 599, time.monotonic() - begun
        self._keep(response)
        return response.code, time.monotonic() - begun

    def _keep(self, response: HTTPResponse) -> None:
        for cookie in response.headers.get_list("Set-Cookie"):
            self._cookie = cookie.partition(";")[0]

    async def visit(self, number: int) -> list[tuple[int, float]]:
        """Write, read and count; begin a new session each tenth time."""
        if number % 10 == 0:
            self._cookie = ""
        return [
            await self.request("PATCH", "/session", '{"cart": ["tea"]}'),
            await self.request("GET", "/session"),
            await self.request("POST", "/session/increment", '{"key": "n", "by": 1}'),
        ]


async def _disturb(plan: Plan, proxy: Network, pid: int) -> None:
    """Stall and cut the connections at random, and stop the server now and then."""
    choice = random.Random(plan.seed)
    for _ in range(plan.cycles):
        proxy.stall()
        if choice.random() < 0.7:
            proxy.cut()
        for _ in range(choice.randint(0, 3)):
            await asyncio.sleep(choice.uniform(0.1, 0.6) * plan.store_timeout)
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(choice.uniform(0.05, plan.longest_stop))
            finally:
                os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(choice.uniform(0.1, 0.6) * plan.store_timeout)
        if choice.random() < 0.5:
            proxy.cut()
        proxy.resume()
        await asyncio.sleep(choice.uniform(0.0, 0.5))


async def _run(plan: Plan, proxy: Network, server: Running, base: str) -> Report:
    report = Report()
    http = SimpleAsyncHTTPClient(force_instance=True, max_clients=2 * CLIENTS)
    # The server itself may be stopped once, or twice, during a request.
    clients = [Client(base, http, plan.budget + 2 * plan.longest_stop) for _ in range(CLIENTS)]
    is_over = False

    async def keeps_visiting(client: Client, number: int) -> None:
        while not is_over:
            number += 1
            for status, took_s in await client.visit(number):
                report.during[status] += 1
                report.longest_s = max(report.longest_s, took_s)

    visits = [asyncio.ensure_future(keeps_visiting(each, n)) for n, each in enumerate(clients)]
    await asyncio.sleep(1.0)
    await _disturb(plan, proxy, server.process.pid)
    await asyncio.sleep(QUIET_S)
    is_over = True
    await asyncio.gather(*visits)
    for number in range(3):
        for answers in await asyncio.gather(*(client.visit(number) for client in clients)):
            for status, took_s in answers:
                report.after[status] += 1
                report.longest_after_s = max(report.longest_after_s, took_s)
    report.ready = (await clients[0].request("GET", "/readyz"))[0]
    http.close()
    errors = server.errors()
    report.lost_locks = errors.count("RuntimeError")
    report.tracebacks = errors.count("Traceback (most recent call last)")
    return report


async def stalls(plan: Plan, backend_port: int, directory: Path) -> Report:
    """Run a server on a backend behind a proxy through *plan*, and report."""
    async with Network(backend_port) as proxy:
        url = KINDS[plan.store].url.format(port=proxy.port)
        options = ("--store", url, "--store-timeout", f"{plan.store_timeout * 1000:.0f}ms")
        with Running(directory, *options, "--visitors-per-address", "1000000") as server:
            base = await asyncio.to_thread(server.base)
            return await _run(plan, proxy, server, base)


def main() -> int:
    """Run the plan that the command line gives."""
    parser = argparse.ArgumentParser(prog="python -m tests.stores.mongo.stalls", description=main.__doc__)
    parser.add_argument("--store", choices=["mongo", "mongo_rs", "redis8"], default="mongo")
    parser.add_argument("--cycles", type=int, default=30)
    parser.add_argument("--store-timeout", type=float, default=2.0, metavar="SECONDS")
    parser.add_argument("--longest-stop", type=float, default=0.7, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    plan = Plan(**vars(parser.parse_args()))
    with Server(plan.store) as backend, tempfile.TemporaryDirectory() as directory:
        report = asyncio.run(stalls(plan, backend.port, Path(directory)))
        print(plan, report, sep="\n")
        if not report.is_well or report.tracebacks:
            print((Path(directory) / "stderr").read_text()[-4000:], file=sys.stderr)
    return 0 if report.is_well else 1


if __name__ == "__main__":
    raise SystemExit(main())
