"""Measure how the cost of a request grows with sessions, users, keys and connections: `make scale`.

Each axis has a few points. Each point has its own server or cookies, and is measured alternately with the
bare handler. Redis and MongoDB get a million sessions as copies of one; the memory store creates each.
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
"""The number of sessions that requests use, chosen at random from those in the store."""
KEYS = (1, 10, 100, 250)
CONNECTIONS = (1, 10, 32, 100, 320, 1000)


@dataclass(frozen=True, slots=True)
class Point:
    """A point on an axis."""

    at: int | str
    server: ServerUnderTest
    connections: int
    bytes_each: float | None = None
    """Memory per session."""


def main() -> int:
    """Measure and report; return 1 if a kind of request failed in every round."""
    options = _options()
    options.generator = generator.choose(options.generator)
    options.cores = reserve_core()
    _allow_connections()
    results: Results = {"about": run_info(options), "axes": {axis: [] for axis in options.axis}}
    for store in options.store:
        for axis in options.axis:
            print(f"{store}: {axis}", flush=True)
            with POINTS[axis](store, options) as points:
                results["axes"][axis] += _measure(store, points, KINDS[axis], options)
    _show(results, options.out)
    return int(any(row["rate"] is None for rows in results["axes"].values() for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=STORES, default=list(STORES), help="default: all three")
    parser.add_argument("--axis", nargs="+", choices=POINTS, default=list(POINTS), help="default: all")
    parser.add_argument("--most", type=int, default=MOST, help=f"sessions in a store (default: {MOST})")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=float, default=2, help="per point and round (default: 2)")
    parser.add_argument(
        "--sessions", type=int, default=1000, help="signed-in sessions on the other axes (default: 1000)"
    )
    parser.add_argument("--connections", type=int, default=32, help="on the other axes (default: 32)")
    parser.add_argument("--generator", choices=generator.GENERATORS, help="default: wrk if installed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: var/bench")
    return parser.parse_args()


def _allow_connections() -> None:
    """Raise the limit of open files of this process and its children to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- the axes ---


@contextmanager
def _by_sessions(store: str, options: argparse.Namespace) -> Iterator[list[Point]]:
    """Yield a server with its own database for each number of sessions."""
    key = os.urandom(32)
    with ExitStack() as stack:
        points: list[Point] = []
        for count in _levels(options.most):
            started, bytes_each = _start_with_sessions(store, count, key, options, stack)
            chosen = Random(count).sample(range(count), min(count, COOKIES))  # the same in each run
            started.cookies += cookie_headers(chosen, key=key)
            points.append(Point(count, started, options.connections, bytes_each))
        yield points if store != "memory" else [_with_memory(point, points[0]) for point in points]


def _levels(most: int) -> list[int]:
    """Return the powers of ten from `FEWEST` to *most*; only *most* if it is below `FEWEST`."""
    levels = [FEWEST]
    while levels[-1] * 10 <= most:
        levels.append(levels[-1] * 10)
    return levels if most >= FEWEST else [most]


def _start_with_sessions(
    store: str, count: int, key: bytes, options: argparse.Namespace, stack: ExitStack
) -> tuple[ServerUnderTest, float | None]:
    """Start a server with *count* sessions; return it and the bytes per session in the database."""
    url = stack.enter_context(backend(store))
    bytes_each = None
    more = [f"--key={key.hex()}"]
    with connected_database(store, url) as stored:
        if stored is None:
            more.append(f"--sessions={count}")
        else:
            before = stored.used_bytes()
            copy_sessions(stored, url, count)
            bytes_each = (stored.used_bytes() - before) / count
    return stack.enter_context(start_app(store, url, *more, cores=options.cores)), bytes_each


def _with_memory(point: Point, smallest: Point) -> Point:
    """Return *point* with the bytes per session in the server's memory, by comparison with *smallest*."""
    more = int(point.at) - int(smallest.at)
    if not more:
        return point
    return replace(point, bytes_each=(point.server.rss_bytes() - smallest.server.rss_bytes()) / more)


@contextmanager
def _by_users(store: str, options: argparse.Namespace) -> Iterator[list[Point]]:
    """Yield other users alone, other users beside one with very many sessions, and that user."""
    with ExitStack() as stack:
        alone, shared = [
            stack.enter_context(start_app(store, stack.enter_context(backend(store)), cores=options.cores))
            for _ in range(2)
        ]
        one_user = replace(shared, query="?user=one", cookies=[], rotating=[])
        one_user.add_sessions(options.sessions // 2)
        servers = {"others alone": alone, BESIDE: shared, "that user": one_user}
        yield [Point(at, each, options.connections) for at, each in servers.items()]


@contextmanager
def _by_keys(store: str, options: argparse.Namespace) -> Iterator[list[Point]]:
    """Yield sessions of one server with different numbers of keys."""
    with backend(store) as url, start_app(store, url, cores=options.cores) as started:
        servers = {n: replace(started, query=f"?keys={n}", cookies=[], rotating=[]) for n in KEYS}
        yield [Point(count, each, options.connections) for count, each in servers.items()]


@contextmanager
def _by_concurrency(store: str, options: argparse.Namespace) -> Iterator[list[Point]]:
    """Yield one server with different numbers of connections."""
    with backend(store) as url, start_app(store, url, cores=options.cores) as started:
        yield [Point(count, started, count) for count in CONNECTIONS]


POINTS = {
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


# --- one axis ---


def _measure(
    store: str, points: Sequence[Point], kinds: Sequence[str], options: argparse.Namespace
) -> list[Results]:
    """Return a row per point and kind of request; each point is measured next to the bare handler."""
    first = points[0]
    cases: dict[tuple[int | str, str], Callable[[], Sample]] = {}
    for point in points:
        if not point.server.cookies:
            point.server.add_sessions(options.sessions)
        for kind in ("bare", *kinds):
            server = first.server if kind == "bare" else point.server
            cases[point.at, kind] = partial(server.sample, kind, options, connections=point.connections)
    samples = rounds.measure_rounds(cases, options.rounds)
    return [
        {
            **{"store": store, "at": point.at, "kind": kind, "bytes_each": point.bytes_each},
            **rounds.result_row(samples, (point.at, kind), (point.at, "bare")),
            "to_first": rounds.as_json(rounds.ratio_spread(samples, (point.at, kind), (first.at, kind))),
            "to_first_cpu": rounds.as_json(
                rounds.ratio_spread(samples, (first.at, kind), (point.at, kind), rounds.CPU)
            ),
        }
        for kind in kinds
        for point in points
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
