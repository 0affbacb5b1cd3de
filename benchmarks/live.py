"""Measure how soon sockets close when their session ends, and what very many of them cost: `make bench-live`.

A thousand WebSockets of two server processes on one store; this process is their client. Sessions end in each
way there is: one after the other, all of a user at once, by time, by their account, by a stop of the servers.
Then the announcements of the store are cut off, so that only the regular check finds what has ended. Last,
very many sockets of one process show memory, CPU time and how long the event loop is blocked.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import tornado

from benchmarks.harness.loop import run
from benchmarks.harness.server_under_test import ServerUnderTest
from benchmarks.harness.tables import RESULTS, Results, write_json
from benchmarks.sockets import capacity, endings
from benchmarks.sockets.servers import STORES, allow_connections, new_key, running_apps, running_store
from benchmarks.sockets.site import Outcome, Pace, Site
from benchmarks.sockets.tables import CHECK, PUSH, STOP, TIMER, live_report

SETTLED_S = 5.0
"""How long after an announced end its socket may be open before it counts as lost."""
CAPACITY_STORE = "redis"

Measurement = Callable[[Site, Pace], Awaitable[Outcome]]


def main() -> int:
    """Measure and report; return 1 if a socket stayed open, or one of a live session was closed."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers are stopped, too
    limit = allow_connections()
    if options.many:
        capacity.require_descriptors(options.many, limit)
    about = _run_info(options)
    results: Results = {"about": about, "latency": [], "capacity": []}
    for store in options.store:
        results["latency"] += _latency(store, options)
        write_json(results, options.out / "live.json")
    if options.many:
        print(f"{options.many} sockets of one process", flush=True)
        results["capacity"].append(_capacity(options))
    about["load_after"] = os.getloadavg()[0]
    _show(results, options.out)
    is_wrong = any(row["lost"] or row["wrong"] for row in results["latency"])
    return int(is_wrong or any(row["closed"] for row in results["capacity"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.live", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=STORES, default=list(STORES), help="default: all")
    parser.add_argument("--sockets", type=int, default=1000, help="open at a time (default: 1000)")
    parser.add_argument("--ends", type=int, default=500, help="per way and round (default: 500)")
    parser.add_argument("--per-s", type=float, default=50, help="at most so many ends a second (default: 50)")
    parser.add_argument("--rounds", type=int, default=1, help="of each way (default: 1)")
    parser.add_argument("--life-s", type=float, default=10, help="of sessions that expire (default: 10)")
    parser.add_argument(
        "--interval-s", type=float, default=2, help="of the checks where nothing is announced (default: 2)"
    )
    parser.add_argument("--many", type=int, default=10_000, help="sockets of one process; 0: none")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: var/bench")
    options = parser.parse_args()
    for name in ("sockets", "ends", "per_s", "rounds", "life_s", "interval_s"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be positive, not {getattr(options, name)}")
    if options.many and options.many <= capacity.FIRST:
        parser.error(f"--many must be 0 or above {capacity.FIRST}, not {options.many}")
    if options.ends > options.sockets:
        parser.error(f"--ends: {options.ends} is more than the {options.sockets} of --sockets")
    return options


def _run_info(options: argparse.Namespace) -> Results:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tornado": tornado.version,
        "load_before": os.getloadavg()[0],
        "load_after": os.getloadavg()[0],
        **{name: getattr(options, name) for name in ("sockets", "ends", "per_s", "rounds")},
    }


# --- latency ---


def _latency(store: str, options: argparse.Namespace) -> list[Results]:
    """Return a row per way to end a session on *store*, with the announcements and without."""
    kind, rows = STORES[store], []
    interval = f"--recheck-s={options.interval_s}"
    absolute = partial(endings.expiry, query=f"&within_s={options.life_s}")
    groups: list[tuple[str, list[str], Mapping[str, Measurement]]] = [
        (TIMER, [f"--idle-s={options.life_s}"], {"idle expiry": endings.expiry}),
        (TIMER, [], {"absolute expiry": absolute}),
        (PUSH, [], {**endings.ONE_BY_ONE, "everywhere": endings.everywhere}),
        (CHECK, [interval, "--deaf"], {**endings.ONE_BY_ONE, "everywhere": endings.everywhere}),
    ]
    if not kind.announces:
        del groups[2]
        groups[-1][1].remove("--deaf")
    for found_by, more, ways in groups:
        rows += _group(store, found_by, more, ways, options)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "accounts.json")
        endings.make_accounts(file)
        way = {"account disabled": partial(endings.account, file=file)}
        rows += _group(store, CHECK, [interval, f"--accounts={file}"], way, options)
    return rows


def _group(
    store: str,
    found_by: str,
    more: Sequence[str],
    ways: Mapping[str, Measurement],
    options: argparse.Namespace,
) -> list[Results]:
    """Measure *ways* on new server processes; those of pushes are stopped as the last way."""
    print(f"{store}: {', '.join(ways)}: {found_by}", flush=True)
    with (
        running_store(store) as url,
        running_apps(store, url, STORES[store].processes, *more, key=new_key()) as apps,
    ):
        found = run(_measure(apps, ways, options, found_by))
    return [_row(store, found_by if way != STOP else STOP, way, found[way], options) for way in found]


async def _measure(
    apps: Sequence[ServerUnderTest],
    ways: Mapping[str, Measurement],
    options: argparse.Namespace,
    found_by: str,
) -> dict[str, Outcome]:
    outcomes = {way: Outcome() for way in ways}
    patience_s = SETTLED_S + (2 * options.interval_s if found_by == CHECK else 0)
    pace = Pace(options.sockets, options.ends, options.per_s, patience_s)
    users = endings.account_name if "account disabled" in ways else "user{}".format
    async with AsyncExitStack() as stack:
        site = await Site.connect(stack, [app.port for app in apps], users)
        for _ in range(options.rounds if "account disabled" not in ways else 1):
            for way, measure in ways.items():
                outcomes[way].add(await measure(site, pace))
        if found_by == PUSH:
            outcomes[STOP] = await endings.drain(site, pace, [app.pid for app in apps])
    return outcomes


def _row(store: str, found_by: str, way: str, outcome: Outcome, options: argparse.Namespace) -> Results:
    return {
        **{"store": store, "found_by": found_by, "way": way, "interval_s": options.interval_s},
        **{"ended": outcome.ended, "lost": outcome.lost, "wrong": outcome.wrong},
        "request": quantiles_ms(outcome.from_request_s),
        "answer": quantiles_ms(outcome.from_answer_s),
        "bare": quantiles_ms(outcome.bare_s),
        "after_all_s": outcome.after_all_s,
    }


def quantiles_ms(times_s: Sequence[float]) -> dict[str, float] | None:
    """Return median, 99th percentile and maximum in ms; None without a time."""
    if not times_s:
        return None
    ordered = sorted(times_s)
    # The nearest rank, so that each is a time that was measured.
    p99_s = ordered[-(len(ordered) // 100) - 1]
    return {"p50": 1000 * statistics.median(ordered), "p99": 1000 * p99_s, "max": 1000 * ordered[-1]}


# --- capacity ---


def _capacity(options: argparse.Namespace) -> Results:
    # With a small number of sockets the interval of the option: it is a test of the benchmark.
    every_s = 15.0 if options.many >= 1000 else options.interval_s
    figures = capacity.measure(CAPACITY_STORE, options.many, every_s=every_s)
    return {"store": CAPACITY_STORE, "sockets": options.many, "interval_s": every_s, **figures}


def _show(results: Results, out: Path) -> None:
    write_json(results, out / "live.json")
    report = live_report(results)
    (out / "live.md").write_text(report + "\n")
    print(f"\n{report}\n")
    from benchmarks.sockets import plot

    plot.draw(results, out)
    print(f"written to {out}: live.json, live.md and live.png")


if __name__ == "__main__":
    raise SystemExit(main())
