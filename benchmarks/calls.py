"""Count the calls of our own functions that a request makes: `python -m benchmarks.calls`.

A function is ours if the file of its module lies in one of `FOLDERS`. Counted is each `call` event of
`sys.setprofile` in such a function:

- a function, lambda, comprehension or generator expression starts;
- a coroutine or a generator continues after it waited or yielded;
- a method that `dataclass` generated starts (its name here begins with `__create_fn__`).

Not counted are functions written in C, other libraries, and the handlers of this benchmark. Threads that
start during the measurement are counted, too: one of them verifies the password. The modules of a trip are
those with at least one counted call.

===========  =========================================================================================
read         GET: a handler reads one key of the session of a signed-in user
write        GET: a handler reads one key and writes it; the change is saved before the response
first login  POST /login of the login server: a form with the right password, from a visitor. It is
             the first since Redis started, so Redis is also sent the text of two scripts
login        the same request again, from another visitor
===========  =========================================================================================

Sessions and failed sign-ins are stored in Redis, accounts in memory; the events have one subscriber. Each
round starts a Redis and the servers anew, and makes one read and one write before those that it counts. The
result for a trip is its most common count. The counts depend on the version of Python: from 3.12 on, most
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
from stormcellar.runtime.server import make_http_server
from stormcellar.stores import open_store
from tests.support.browser import Browser, token
from tests.support.fakes import Clock
from tests.support.site import PASSWORD, USERS, Site

FOLDERS = (ROOT / "server", ROOT / "stores")
TRIPS = ("read", "write", "first login", "login")

# After a response, its callbacks and the task that sent the last batch still have to end.
_SETTLE_S = 0.02

Calls = Counter[tuple[str, str]]
"""How often each function was called, by the file of its module and its qualified name."""


def main() -> None:
    """Print the calls and modules of each trip."""
    options = _options()
    rounds = [_round() for _ in range(options.rounds)]
    found = {trip: [each[trip] for each in rounds] for trip in TRIPS}
    usual = {trip: most_common(counts) for trip, counts in found.items()}
    print(f"{'':12}{'calls':>7}{'modules':>9}")
    for trip, calls in usual.items():
        print(f"{trip:12}{calls.total():7}{len(by_module(calls)):9}{_spread(found[trip])}")
    for trip, calls in usual.items():
        if options.by_module:
            _show(f"{trip}, by module", by_module(calls))
        if options.by_function:
            names = {f"{name}  {file}": count for (file, name), count in calls.items()}
            _show(f"{trip}, by function", names)


def _round() -> dict[str, Calls]:
    with backend("redis") as url:
        return run(measure(url))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.calls", description="Count calls of our own functions.")
    parser.add_argument("--rounds", type=int, default=5, help="each with its own servers (default: 5)")
    parser.add_argument("--by-module", action="store_true", help="print the calls of each module, too")
    parser.add_argument("--by-function", action="store_true", help="print the calls of each function, too")
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
    """Return the calls of the first round that has the most common total."""
    totals = [calls.total() for calls in rounds]
    return rounds[totals.index(statistics.mode(totals))]


def by_module(calls: Calls) -> Counter[str]:
    """Return how many of *calls* are in each module."""
    modules: Counter[str] = Counter()
    for (file, _), count in calls.items():
        modules[file] += count
    return modules


@contextmanager
def counting(*folders: Path) -> Iterator[Calls]:
    """Count the calls of functions whose modules are in *folders*; yields the counts, which grow.

    Counts in this thread and in those that start meanwhile. The name of a file begins with its folder.
    """
    seen: Calls = Counter()
    roots = [folder.resolve() for folder in folders]

    @cache
    def place(file: str | None) -> str | None:
        path = Path(file or "").resolve()
        return next((str(path.relative_to(root.parent)) for root in roots if root in path.parents), None)

    def look(frame: FrameType, event: str, argument: object) -> None:
        # The file of the code is no path where dataclass generated it.
        if event == "call" and (file := place(frame.f_globals.get("__file__"))):
            seen[file, frame.f_code.co_qualname] += 1

    before, before_in_threads = sys.getprofile(), threading.getprofile()
    threading.setprofile(look)
    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        threading.setprofile(before_in_threads)


# --- trips ---


class Write(SessionMixin, RequestHandler):
    """Changes one value."""

    def get(self) -> None:
        """Answer; what was changed is saved before."""
        self.session["count"] = self.session.get("count", 0) + 1
        self.write("hello")


async def measure(url: str) -> dict[str, Calls]:
    """Return the calls of each trip, with sessions in the store at *url*, which is empty."""
    site = Site(open_store(url), clock=Clock(time.time()))
    try:
        with counting(*FOLDERS) as seen:
            async with _embedded(site.sessions) as base:
                found = await _requests(seen, Browser(site.client, base))
            return found | await _sign_ins(seen, site)
    finally:
        await site.close()


@asynccontextmanager
async def _embedded(sessions: SessionManager) -> AsyncIterator[str]:
    """Serve an application that embeds sessions; yields its address."""
    routes = [("/start", Start), ("/read", Read), ("/write", Write)]
    http = make_http_server(
        Application(routes, **session_settings(sessions, log_function=lambda handler: None))
    )
    sockets = bind_sockets(0, "127.0.0.1")
    http.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        http.stop()
        await http.close_all_connections()


async def _requests(seen: Calls, browser: Browser) -> dict[str, Calls]:
    await browser.get(f"/start?user={USERS[0]}")
    found = {}
    for trip in ("read", "write"):
        await browser.get(f"/{trip}")
        found[trip] = await _trip(seen, browser.get(f"/{trip}"))
    return found


async def _sign_ins(seen: Calls, site: Site) -> dict[str, Calls]:
    found = {}
    for trip in ("first login", "login"):
        visitor = site.browser()
        form = token(await visitor.get("/login"))
        fields = {"username": USERS[0], "password": PASSWORD}
        found[trip] = await _trip(seen, visitor.post_form("/login", form, **fields))
    return found


async def _trip(seen: Calls, asking: Awaitable[HTTPResponse]) -> Calls:
    await asyncio.sleep(_SETTLE_S)
    seen.clear()
    response = await asking
    await asyncio.sleep(_SETTLE_S)
    if response.code not in (200, 303):
        raise SystemExit(f"{response.effective_url} answered {response.code}")
    if not seen:
        raise SystemExit("no function of ours was called: the packages are not those of this directory")
    return seen.copy()


if __name__ == "__main__":
    main()
