"""Results as JSON and as Markdown tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tornado

from benchmarks.harness import ROOT, generator
from benchmarks.harness.databases import format_operations
from benchmarks.harness.server_under_test import OURS
from benchmarks.harness.targets import MANY_TO_FEW, P99_TO_BARE, READ_TO_EXPRESS, TO_BARE, verdict

RESULTS = ROOT / "var" / "bench"
MILLION = 1_000_000
BESIDE = "others beside"
"""On the axis of users: all users except the one with a thousand sessions."""
Results = dict[str, Any]
"""The results of a run, as JSON values."""


def run_info(options: argparse.Namespace) -> Results:
    """Return the conditions of a run: machine, versions, load."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "pinned": bool(options.cores),
        "python": platform.python_version(),
        "tornado": tornado.version,
        "generator": generator.describe(options.generator),
        "connections": options.connections,
        "rounds": options.rounds,
        "seconds": options.seconds,
    }


def write_json(results: Results, file: Path) -> None:
    """Write *results* as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")


# --- tables ---


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_spread(spread: Results | None, digits: int = 3) -> str:
    """Return *spread* as text: the median, and the lowest and highest of the rounds."""
    if spread is None:
        return "failed"
    fewer = max(0, digits - 1)
    if spread["low"] == spread["high"]:
        return f"{spread['median']:.{digits}f}"
    return f"{spread['median']:.{digits}f} ({spread['low']:.{fewer}f}–{spread['high']:.{fewer}f})"


def format_target(spread: Results | None, target: float | None, *, at_most: bool = False) -> str:
    """Return *target* and whether *spread* meets it, as text."""
    if target is None:
        return ""
    sign = "≤" if at_most else "≥"
    word = verdict(spread["median"], target, at_most=at_most) if spread else "not measured"
    return f"{sign} {target:.2f} {word}"


def _spreads(row: Results, **digits: int) -> Iterator[str]:
    """Yield the spreads of *row* with these names as text, each with its number of digits."""
    return (format_spread(row[name], count) for name, count in digits.items())


def rate_table(results: Results) -> str:
    """Return our rates compared with the bare handler and with the targets."""
    rows = [
        (
            *(row["store"], row["kind"]),
            *_spreads(row, rate=0, ratio=3),
            format_target(row["ratio"], TO_BARE.get((row["store"], row["kind"]))),
            *_spreads(row, cpu_us=0, cpu_ratio=3, busy=2),
        )
        for row in results["rows"]
        if row["server"] == OURS
    ]
    header = (
        *("store", "request", "requests/s", "to bare", "target"),
        *("CPU µs", "to bare by CPU", "server busy"),
    )
    return markdown_table(header, rows)


def latency_table(results: Results) -> str:
    """Return our latency compared with the bare handler and with the target."""
    rows = [
        (
            *(row["store"], row["kind"]),
            *_spreads(row, p50_ms=1, p90_ms=1, p99_ms=1, p99_ratio=2),
            "" if row["kind"] == "bare" else format_target(row["p99_ratio"], P99_TO_BARE, at_most=True),
        )
        for row in results["rows"]
        if row["server"] == OURS
    ]
    return markdown_table(("store", "request", "p50 ms", "p90 ms", "p99 ms", "p99 to bare", "target"), rows)


def peers_table(results: Results) -> str:
    """Return the rate of each peer, its ratio to the bare Tornado handler, and our ratio to it."""
    against = {(row["peer"], row["store"], row["kind"]): row for row in results["against"]}
    rows = [
        (
            *(row["store"], row["kind"], row["server"]),
            *_spreads(row, rate=0, ratio=3),
            *_spreads(ours, ratio=3),
            format_target(ours["ratio"], _peer_target(row)),
            *_spreads(ours, cpu_ratio=3),
        )
        for row in results["rows"]
        if (ours := against.get((row["server"], row["store"], row["kind"])))
    ]
    header = (
        *("store", "request", "peer", "its requests/s", "it to bare Tornado"),
        *("ours to it", "target", "by CPU"),
    )
    return markdown_table(header, rows) if rows else "No peer was measured."


def _peer_target(row: Results) -> float | None:
    return READ_TO_EXPRESS[row["store"]] if (row["server"], row["kind"]) == ("express", "read") else None


def operations_table(results: Results) -> str:
    """Return the database operations of each kind of request."""
    rows = [
        (row["store"], row["server"], row["kind"], format_operations(row["operations"]))
        for row in results["rows"]
        if row["store"] != "memory" and row["kind"] != "bare"
    ]
    return markdown_table(("store", "server", "request", "database operations per request"), rows)


def run_description(results: Results) -> str:
    """Return the conditions of the run and the notes on servers."""
    info = results["about"]
    pinned = "server on its own core" if info["pinned"] else "NOT pinned: server and load share cores"
    lines = [
        f"{info['when'][:10]}, {info['cores']} cores, {pinned}. Python {info['python']}, "
        f"Tornado {info['tornado']}; {info['generator']}, {info['connections']} connections. "
        f"{info['rounds']} rounds of {info['seconds']:g} s: median (lowest–highest).",
        *(f"{name}: {what}." for name, what in results.get("notes", {}).items()),
    ]
    return "\n\n".join(lines)


def bench_report(results: Results) -> str:
    """Return the report of `make bench`."""
    tables = (rate_table, latency_table, peers_table, operations_table)
    return "\n\n".join([run_description(results), *(each(results) for each in tables)])


def scale_report(results: Results) -> str:
    """Return the report of `make scale`: one table per axis."""
    tables = [_scale_table(axis, rows) for axis, rows in results["axes"].items() if rows]
    return "\n\n".join([run_description(results), *tables])


def _scale_table(axis: str, rows: Sequence[Results]) -> str:
    header = (
        *("store", axis, "request", "requests/s", "to bare", f"to “{rows[0]['at']}”"),
        *("by CPU", "p99 ms", "p99 to bare", "bytes a session", "target"),
    )
    lines = [
        (
            *(row["store"], str(row["at"]), row["kind"]),
            *_spreads(row, rate=0, ratio=3, to_first=3, to_first_cpu=3, p99_ms=1, p99_ratio=2),
            f"{row['bytes_each']:.0f}" if row["bytes_each"] else "",
            _scale_target(axis, row),
        )
        for row in rows
    ]
    return markdown_table(header, lines)


def _scale_target(axis: str, row: Results) -> str:
    if (axis, row["at"], row["kind"]) == ("sessions", MILLION, "read"):
        return format_target(row["to_first"], MANY_TO_FEW)
    if (axis, row["at"]) == ("users", BESIDE):
        return format_target(row["to_first"], MANY_TO_FEW)
    return format_target(row["p99_ratio"], P99_TO_BARE, at_most=True) if axis == "concurrency" else ""
