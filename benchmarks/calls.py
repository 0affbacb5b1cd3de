"""Count the calls of our own functions per request: `python -m benchmarks.calls`.

A function is ours if the file of its module is in one of `FOLDERS`. The benchmark counts each `call` event of
`sys.setprofile` in such a function:

- a function, lambda, comprehension or generator expression starts;
- a coroutine or a generator continues after an `await` or a `yield`;
- a method that `dataclass` generated starts (its name begins with `__create_fn__` here).

It does not count functions written in C, other libraries, and the handlers of this benchmark. It counts
threads that start during the measurement, because one of them verifies the password. The modules of a
scenario are those with at least one counted call.

===========  =========================================================================================
read         GET: a handler reads one key of the session of a signed-in user
write        GET: a handler reads one key and writes it; the change is saved before the response
first login  POST /login of the login server: a form with the right password, from a visitor; it is the
             first since Redis started, so it also sends Redis the text of two scripts
login        the same request again, from another visitor
===========  =========================================================================================

Redis stores sessions and failed sign-ins, memory the accounts; the events have one subscriber. Each round
starts a new Redis and new servers, and makes one read and one write before it counts. The result of a
scenario is its most common count. The counts depend on the version of Python: from 3.12 on, most
comprehensions are not calls.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from types import FrameType

from tornado.httpclient import HTTPResponse
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from benchmarks.harness import ROOT
from benchmarks.harness.app import Read, Start
from benchmarks.harness.databases import backend
from benchmarks.harness.loop import run
from stormcellar import SessionManager, SessionMixin, session_settings
from stormcellar.runtime.connections import Connections
from stormcellar.runtime.http_server import LimitedServer
from stormcellar.stores import open_store
from tests.support.browser import Browser, token
from tests.support.fakes import Clock
from tests.support.site import PASSWORD, USERS, Site

FOLDERS = (ROOT / "server", ROOT / "stores")
SCENARIOS = ("read", "write", "first login", "login")

# After a response, its callbacks and the task that sent the last batch must end first.
_SETTLE_S = 0.02

Calls = Counter[tuple[str, str]]
"""The number of calls of each function, by the file of its module and its qualified name."""


def main() -> None:
    """Print the calls and modules of each scenario."""
    options = _options()
    rounds = [_round() for _ in range(options.rounds)]
    counts = {name: [each[name] for each in rounds] for name in SCENARIOS}
    results = {name: most_common(each) for name, each in counts.items()}
    print(f"{'':12}{'calls':>7}{'modules':>9}")
    for name, calls in results.items():
        print(f"{name:12}{calls.total():7}{len(by_module(calls)):9}{_spread(counts[name])}")
    for scenario, calls in results.items():
        if options.by_module:
            _show(f"{scenario}, by module", by_module(calls))
        if options.by_function:
            names = {f"{name}  {file}": count for (file, name), count in calls.items()}
            _show(f"{scenario}, by function", names)


def _round() -> dict[str, Calls]:
    with backend("redis") as url:
        return run(measure(url))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.calls", description="Count calls of our own functions.")
    parser.add_argument("--rounds", type=int, default=5, help="each with new servers (default: 5)")
    parser.add_argument("--by-module", action="store_true", help="also print the calls of each module")
    parser.add_argument("--by-function", action="store_true", help="also print the calls of each function")
    return parser.parse_args()


def _spread(rounds: Sequence[Calls]) -> str:
    totals = sorted({calls.total() for calls in rounds})
    return "" if len(totals) == 1 else f"  the rounds differ: {', '.join(map(str, totals))}"


def _show(title: str, counts: Mapping[str, int]) -> None:
    print(f"\n{title}")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        print(f"{count:5}  {name}")


# --- counts ---


def most_common(rounds: Sequence[Calls]) -> Calls:
    """Return the calls of the first round with the most common total."""
    totals = [calls.total() for calls in rounds]
    return rounds[totals.index(statistics.mode(totals))]


def by_module(calls: Calls) -> Counter[str]:
    """Return the number of *calls* in each module."""
    modules: Counter[str] = Counter()
    for (file, _), count in calls.items():
        modules[file] += count
    return modules


@contextmanager
def counting(*folders: Path) -> Iterator[Calls]:
    """Count the calls of functions whose modules are in *folders*; yield the growing counts.

    This covers the current thread and threads that start in the context. File names are relative to the
    parent of their folder.
    """
    counts: Calls = Counter()
    roots = [folder.resolve() for folder in folders]

    @cache
    def relative_path(file: str | None) -> str | None:
        path = Path(file or "").resolve()
        return next((str(path.relative_to(root.parent)) for root in roots if root in path.parents), None)

    def count(frame: FrameType, event: str, argument: object) -> None:
        # Not co_filename: for code that dataclass generated it is not a path.
        if event == "call" and (file := relative_path(frame.f_globals.get("__file__"))):
            counts[file, frame.f_code.co_qualname] += 1

    before, before_in_threads = sys.getprofile(), threading.getprofile()
    threading.setprofile(count)
    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(before)
        threading.setprofile(before_in_threads)


# --- scenarios ---


class Write(SessionMixin, RequestHandler):
    """Change one value."""

    def get(self) -> None:
        """Respond after the change is saved."""
        self.session["count"] = self.session.get("count", 0) + 1
        self.write("hello")


async def measure(url: str) -> dict[str, Calls]:
    """Return the calls of each scenario, with sessions in the empty store at *url*."""
    site = Site(open_store(url), clock=Clock(time.time()))
    try:
        with counting(*FOLDERS) as counts:
            async with _embedded(site.sessions) as base:
                found = await _requests(counts, Browser(site.client, base))
            return found | await _sign_ins(counts, site)
    finally:
        await site.close()


@asynccontextmanager
async def _embedded(sessions: SessionManager) -> AsyncIterator[str]:
    """Serve an application that embeds sessions; yield its base URL."""
    routes = [("/start", Start), ("/read", Read), ("/write", Write)]
    app = Application(routes, **session_settings(sessions, log_function=lambda handler: None))
    http = LimitedServer(app, connections=Connections())
    sockets = bind_sockets(0, "127.0.0.1")
    http.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        http.stop()
        await http.close_all_connections()


async def _requests(counts: Calls, browser: Browser) -> dict[str, Calls]:
    await browser.get(f"/start?user={USERS[0]}")
    found = {}
    for name in ("read", "write"):
        await browser.get(f"/{name}")
        found[name] = await _count(counts, browser.get(f"/{name}"))
    return found


async def _sign_ins(counts: Calls, site: Site) -> dict[str, Calls]:
    found = {}
    for name in ("first login", "login"):
        visitor = site.browser()
        form = token(await visitor.get("/login"))
        fields = {"username": USERS[0], "password": PASSWORD}
        found[name] = await _count(counts, visitor.post_form("/login", form, **fields))
    return found


async def _count(counts: Calls, request: Awaitable[HTTPResponse]) -> Calls:
    await asyncio.sleep(_SETTLE_S)
    counts.clear()
    response = await request
    await asyncio.sleep(_SETTLE_S)
    if response.code not in (200, 303):
        raise SystemExit(f"{response.effective_url} returned {response.code}")
    if not counts:
        raise SystemExit(
            "no function in server/ or stores/ was called: the installed package is from another directory"
        )
    return counts.copy()


if __name__ == "__main__":
    main()
