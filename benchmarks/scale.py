"""Whether the cost of a request stays flat: with many sessions, users, keys, connections: `make scale`.

Each axis is a few places, each with a server and cookies of its own, measured in turn with the bare handler.
A million sessions are put into Redis and MongoDB as copies of one; in memory each is created.
"""

from __future__ import annotations

import argparse
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.harness import generator, rounds
from benchmarks.harness.bulk_sessions import cookie_headers, copy_sessions
from benchmarks.harness.databases import STORES, backend, connected_database
from benchmarks.harness.generator import Sample
from benchmarks.harness.server_under_test import ServerUnderTest, reserve_core, start_app
from benchmarks.harness.tables import BESIDE, RESULTS, Results, run_info, scale_report, write_json

FEWEST, MOST = 1_000, 1_000_000
COOKIES = 10_000
"""So many of the sessions in the store are asked for, chosen at random."""
KEYS = (1, 10, 100, 250)
CONNECTIONS = (1, 10, 32, 100, 320, 1000)


@dataclass(frozen=True, slots=True)
class Place:
    """A place on an axis."""

    at: int | str
    server: ServerUnderTest
    connections: int
    bytes_each: float | None = None
    """What a session takes."""


def main() -> int:
    """Measure, show and write; 1 if a kind of request failed in every round."""
    options = _options()
    options.generator = generator.choose(options.generator)
    options.cores = reserve_core()
    _allow_connections()
    results: Results = {"about": run_info(options), "axes": {axis: [] for axis in options.axis}}
    for store in options.store:
        for axis in options.axis:
            print(f"{store}: {axis}", flush=True)
            with PLACES[axis](store, options) as places:
                results["axes"][axis] += _measured(store, places, KINDS[axis], options)
    _show(results, options.out)
    return int(any(row["rate"] is None for rows in results["axes"].values() for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=STORES, default=list(STORES), help="default: all three")
    parser.add_argument("--axis", nargs="+", choices=PLACES, default=list(PLACES), help="default: all")
    parser.add_argument("--most", type=int, default=MOST, help=f"sessions in a store (default: {MOST})")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=float, default=2, help="of each place a round (default: 2)")
    parser.add_argument(
        "--sessions", type=int, default=1000, help="signed in where not counted (default: 1000)"
    )
    parser.add_argument("--connections", type=int, default=32, help="where not counted (default: 32)")
    parser.add_argument("--generator", choices=generator.GENERATORS, help="default: wrk if installed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: var/bench")
    return parser.parse_args()


def _allow_connections() -> None:
    """Let this process, and those it starts, have as many files open as the system lets them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- the axes ---


@contextmanager
def _by_sessions(store: str, options: argparse.Namespace) -> Iterator[list[Place]]:
    """Yield a server, with a database of its own, for each number of sessions."""
    key = os.urandom(32)
    with ExitStack() as stack:
        places: list[Place] = []
        for count in _levels(options.most):
            started, bytes_each = _start_with_sessions(store, count, key, options, stack)
            chosen = Random(count).sample(range(count), min(count, COOKIES))  # the same in each run
            started.cookies += cookie_headers(chosen, key=key)
            places.append(Place(count, started, options.connections, bytes_each))
        yield places if store != "memory" else [_weighed(place, places[0]) for place in places]


def _levels(most: int) -> list[int]:
    """Return the powers of ten from `FEWEST` to *most*; *most* alone if it is below."""
    found = [FEWEST]
    while found[-1] * 10 <= most:
        found.append(found[-1] * 10)
    return found if most >= FEWEST else [most]


def _start_with_sessions(
    store: str, count: int, key: bytes, options: argparse.Namespace, stack: ExitStack
) -> tuple[ServerUnderTest, float | None]:
    """Start a server with *count* sessions; returns with it what each takes in the database."""
    url = stack.enter_context(backend(store))
    bytes_each = None
    more = [f"--key={key.hex()}"]
    with connected_database(store, url) as counted:
        if counted is None:
            more.append(f"--sessions={count}")
        else:
            before = counted.used_bytes()
            copy_sessions(counted, url, count)
            bytes_each = (counted.used_bytes() - before) / count
    return stack.enter_context(start_app(store, url, *more, cores=options.cores)), bytes_each


def _weighed(place: Place, least: Place) -> Place:
    """Return *place* with what a session takes in the server's own memory, by comparison with the *least*."""
    more = int(place.at) - int(least.at)
    if not more:
        return place
    return replace(place, bytes_each=(place.server.rss_bytes() - least.server.rss_bytes()) / more)


@contextmanager
def _by_users(store: str, options: argparse.Namespace) -> Iterator[list[Place]]:
    """Yield everybody alone, and beside a user with very many sessions; and that user."""
    with ExitStack() as stack:
        alone, shared = [
            stack.enter_context(start_app(store, stack.enter_context(backend(store)), cores=options.cores))
            for _ in range(2)
        ]
        one_user = replace(shared, query="?user=one", cookies=[], rotating=[])
        one_user.add_sessions(options.sessions // 2)
        servers = {"others alone": alone, BESIDE: shared, "that user": one_user}
        yield [Place(at, each, options.connections) for at, each in servers.items()]


@contextmanager
def _by_keys(store: str, options: argparse.Namespace) -> Iterator[list[Place]]:
    """Yield one server's sessions by how many keys they hold."""
    with backend(store) as url, start_app(store, url, cores=options.cores) as started:
        held = {n: replace(started, query=f"?keys={n}", cookies=[], rotating=[]) for n in KEYS}
        yield [Place(count, each, options.connections) for count, each in held.items()]


@contextmanager
def _by_concurrency(store: str, options: argparse.Namespace) -> Iterator[list[Place]]:
    """Yield one server and its sessions, for different numbers of connections."""
    with backend(store) as url, start_app(store, url, cores=options.cores) as started:
        yield [Place(count, started, count) for count in CONNECTIONS]


PLACES = {
    "sessions": _by_sessions,
    "users": _by_users,
    "keys": _by_keys,
    "concurrency": _by_concurrency,
}
KINDS = {
    "sessions": ("read", "write"),
    "users": ("read", "login"),
    "keys": ("read", "write"),
    "concurrency": ("read",),
}


# --- an axis measured ---


def _measured(
    store: str, places: Sequence[Place], kinds: Sequence[str], options: argparse.Namespace
) -> list[Results]:
    """Return a row for each place and kind of request; the bare handler is measured beside each place."""
    first = places[0]
    cases: dict[tuple[int | str, str], Callable[[], Sample]] = {}
    for place in places:
        if not place.server.cookies:
            place.server.add_sessions(options.sessions)
        for kind in ("bare", *kinds):
            asked = first.server if kind == "bare" else place.server
            cases[place.at, kind] = partial(asked.sample, kind, options, connections=place.connections)
    found = rounds.measure_rounds(cases, options.rounds)
    return [
        {
            **{"store": store, "at": place.at, "kind": kind, "bytes_each": place.bytes_each},
            **rounds.result_row(found, (place.at, kind), (place.at, "bare")),
            "to_first": rounds.as_json(rounds.ratio_spread(found, (place.at, kind), (first.at, kind))),
            "to_first_cpu": rounds.as_json(
                rounds.ratio_spread(found, (first.at, kind), (place.at, kind), rounds.CPU)
            ),
        }
        for kind in kinds
        for place in places
    ]


def _show(results: Results, out: Path) -> None:
    write_json(results, out / "scale.json")
    report = scale_report(results)
    (out / "scale.md").write_text(report + "\n")
    print(f"\n{report}\n")
    from benchmarks.harness import scale_plots

    for axis in results["axes"]:
        scale_plots.axis(results, axis, out)
    scale_plots.memory(results, out)
    print(f"written to {out}: scale.json, scale.md and a plot of each axis")


if __name__ == "__main__":
    raise SystemExit(main())
