"""Compare requests with a session to a bare Tornado handler and to peers: `make bench`.

Starts all servers on loopback, verifies that each does the same work, then measures them alternately. Writes
JSON, tables and plots, and reports whether each target is met; a missed target is not an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import generator, rounds
from benchmarks.harness.client import connected_client
from benchmarks.harness.databases import STORES, Database, backend, connected_database
from benchmarks.harness.generator import Sample
from benchmarks.harness.server_under_test import OURS, ServerUnderTest, reserve_core, start_app, start_server
from benchmarks.harness.tables import RESULTS, Results, bench_report, run_info, write_json
from benchmarks.harness.verify import KINDS, Operations, VerificationError, verify
from tests.support.backends import free_port

Case = tuple[str, str]
"""The name of a server, and the kind of request."""

BARE: dict[str, Case] = {
    "bare": (OURS, "bare"),
    "read": (OURS, "bare"),
    "write": (OURS, "bare for write"),
    "login": (OURS, "bare for login"),
}
"""The baseline of each kind of request: the bare handler, measured directly before or after it."""


def main() -> int:
    """Measure and report; return 1 if a kind of request to our server failed in every round."""
    options = _options()
    options.generator = generator.choose(options.generator)
    options.cores = reserve_core()
    peers = [] if options.no_peers else _peers()
    results: Results = {"about": run_info(options), "notes": {}, "rows": [], "against": []}
    print(f"load generator: {results['about']['generator']}", flush=True)
    ready = [peer for peer in peers if _is_ready(peer, options.store, results)]
    for store in options.store:
        _measure(store, ready, results, options)
    _show(results, options.out)
    return int(any(row["rate"] is None for row in results["rows"] if row["server"] == OURS))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.bench", description=__doc__)
    parser.add_argument("--store", nargs="+", choices=STORES, default=list(STORES), help="default: all three")
    parser.add_argument("--rounds", type=int, default=9, help="default: 9")
    parser.add_argument("--seconds", type=float, default=2, help="per kind of request and round (default: 2)")
    parser.add_argument("--connections", type=int, default=32, help="default: 32")
    parser.add_argument(
        "--sessions", type=int, default=1000, help="signed-in sessions per server (default: 1000)"
    )
    parser.add_argument("--generator", choices=generator.GENERATORS, help="default: wrk if installed")
    parser.add_argument("--no-peers", action="store_true", help="measure only our server")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: var/bench")
    return parser.parse_args()


def _peers() -> list[Any]:
    try:
        from benchmarks.peers import PEERS
    except ModuleNotFoundError as exc:
        if exc.name != "benchmarks.peers":
            raise
        return []
    return list(PEERS)


def _is_ready(peer: Any, stores: Sequence[str], results: Results) -> bool:
    if not set(stores) & set(peer.stores):
        return False
    reason = peer.missing()
    try:
        if reason is None:
            peer.prepare()
    except RuntimeError as exc:
        reason = str(exc)
    if reason is not None:
        _note(peer.name, f"not measured: {reason}", results)
    return reason is None


def _note(name: str, note: str, results: Results) -> None:
    """Print a note about *name* and add it to the report."""
    results["notes"][name] = note
    print(f"{name}: {note}", file=sys.stderr, flush=True)


# --- one store ---


def _measure(store: str, peers: Sequence[Any], results: Results, options: argparse.Namespace) -> None:
    """Measure our server and the peers with *store*; add the results.

    Raises:
        SystemExit: Our server failed verification.
    """
    with ExitStack() as stack:
        url = stack.enter_context(backend(store))
        stored = stack.enter_context(connected_database(store, url))
        ours = stack.enter_context(start_app(store, url, cores=options.cores))
        try:
            operations = {OURS: verify(ours, stored)}
        except VerificationError as exc:
            raise SystemExit(f"{OURS} with {store} failed verification: {exc}") from exc
        servers = [ours]
        for peer in (peer for peer in peers if store in peer.stores):
            started = _start(peer, store, "" if store == "memory" else url, stored, options, stack)
            if isinstance(started, str):
                _note(f"{peer.name} with {store}", f"not measured: {started}", results)
                continue
            servers.append(started[0])
            operations[peer.name] = started[1]
            if peer.reads_write:
                _note(peer.name, "each read also writes; the library has no option to prevent it", results)
        _add_rows(results, store, servers, operations, _measure_rounds(store, servers, options))
        for each in servers:
            if _lost_sessions(each):
                _note(f"{each.name} with {store}", "lost sessions under load", results)


def _start(
    peer: Any, store: str, url: str, stored: Database | None, options: argparse.Namespace, stack: ExitStack
) -> tuple[ServerUnderTest, Operations] | str:
    """Start and verify a peer; return it with its database operations, or the reason not to measure it."""
    port = free_port()
    with ExitStack() as starting:
        try:
            command = peer.command(store, url, port)
            started = starting.enter_context(
                start_server(peer.name, store, command, port=port, cores=options.cores)
            )
            operations = verify(started, stored, reads_write=peer.reads_write)
        except (VerificationError, RuntimeError, OSError) as exc:
            return f"failed verification: {exc}" if isinstance(exc, VerificationError) else str(exc)
        stack.push(starting.pop_all())
    return started, operations


def _measure_rounds(
    store: str, servers: Sequence[ServerUnderTest], options: argparse.Namespace
) -> list[rounds.Round[Case]]:
    for each in servers:
        each.add_sessions(options.sessions)
    ours, *others = servers
    cases: dict[Case, Callable[[], Sample]] = {}
    for kind in KINDS[1:]:
        cases[BARE[kind]] = partial(ours.sample, "bare", options)
        cases |= {(each.name, kind): partial(each.sample, kind, options) for each in servers}
    cases |= {(each.name, "bare"): partial(each.sample, "bare", options) for each in others}
    total_s = len(cases) * options.rounds * options.seconds
    print(f"{store}: {', '.join(each.name for each in servers)}; {total_s:.0f} s", flush=True)
    return rounds.measure_rounds(cases, options.rounds)


def _lost_sessions(each: ServerUnderTest) -> bool:
    """Whether sessions ended during the run; then the last samples did not measure the intended work."""
    with connected_client(each.port) as client:
        cookies = [*each.cookies[:20], *each.rotating[:20]]
        return any(client.get("/read", cookie).status_and_text != (200, "somebody") for cookie in cookies)


# --- results ---


def _add_rows(
    results: Results,
    store: str,
    servers: Sequence[ServerUnderTest],
    operations: dict[str, Operations],
    samples: Sequence[rounds.Round[Case]],
) -> None:
    names = [each.name for each in servers]
    for name in names:
        for kind in KINDS:
            row = rounds.result_row(samples, (name, kind), BARE[kind])
            if row["failed"]:
                _note(
                    f"{name} {store} {kind}", f"failed in {row['failed']} of {len(samples)} rounds", results
                )
            results["rows"].append(
                {"server": name, "store": store, "kind": kind, **row, "operations": operations[name][kind]}
            )
    for name in names[1:]:
        for kind in KINDS:
            ours, its = (OURS, kind), (name, kind)
            compared = {
                "ratio": rounds.as_json(rounds.ratio_spread(samples, ours, its)),
                "cpu_ratio": rounds.as_json(rounds.ratio_spread(samples, its, ours, rounds.CPU)),
            }
            results["against"].append({"peer": name, "store": store, "kind": kind, **compared})


def _show(results: Results, out: Path) -> None:
    write_json(results, out / "bench.json")
    report = bench_report(results)
    (out / "bench.md").write_text(report + "\n")
    print(f"\n{report}\n")
    from benchmarks.harness import plots

    for plot in (plots.ratios, plots.latency):
        plot(results, out)
    print(f"written to {out}: bench.json, bench.md, ratios.png, latency.png")


if __name__ == "__main__":
    raise SystemExit(main())
