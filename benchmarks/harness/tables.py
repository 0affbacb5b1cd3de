"""What was measured, as JSON and as Markdown tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Sequence
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
"""On the axis of users: everybody else, where one has a thousand sessions."""
Figures = dict[str, Any]
"""What JSON holds of a run."""


def about(options: argparse.Namespace) -> Figures:
    """Return what a reader must know about a run to believe it."""
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


def write(figures: Figures, file: Path) -> None:
    """Write *figures* as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1) + "\n")


# --- tables ---


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(spread: Figures | None, digits: int = 3) -> str:
    """Return a spread as text: the median, and between what the rounds lie."""
    if spread is None:
        return "failed"
    rough = max(0, digits - 1)
    if spread["low"] == spread["high"]:
        return f"{spread['median']:.{digits}f}"
    return f"{spread['median']:.{digits}f} ({spread['low']:.{rough}f}–{spread['high']:.{rough}f})"


def judged(spread: Figures | None, target: float | None, *, at_most: bool = False) -> str:
    """Return a target and whether it is met, as text."""
    if target is None:
        return ""
    sign = "≤" if at_most else "≥"
    word = verdict(spread["median"], target, at_most=at_most) if spread else "not measured"
    return f"{sign} {target:.2f} {word}"


def rate_table(figures: Figures) -> str:
    """Return our own rates beside those of the bare handler, with the targets."""
    rows = [
        (
            *(row["store"], row["kind"], shown(row["rate"], 0)),
            *(shown(row["ratio"]), judged(row["ratio"], TO_BARE.get((row["store"], row["kind"])))),
            *(shown(row["cpu_us"], 0), shown(row["cpu_ratio"]), shown(row["busy"], 2)),
        )
        for row in figures["rows"]
        if row["server"] == OURS
    ]
    header = (
        *("store", "request", "requests/s", "to bare", "target"),
        *("CPU µs", "to bare by CPU", "server busy"),
    )
    return table(header, rows)


def latency_table(figures: Figures) -> str:
    """Return how long our answers took beside those of the bare handler, with the target."""
    rows = [
        (
            *(row["store"], row["kind"], *(shown(row[name], 1) for name in ("p50_ms", "p90_ms", "p99_ms"))),
            shown(row["p99_ratio"], 2),
            "" if row["kind"] == "bare" else judged(row["p99_ratio"], P99_TO_BARE, at_most=True),
        )
        for row in figures["rows"]
        if row["server"] == OURS
    ]
    return table(("store", "request", "p50 ms", "p90 ms", "p99 ms", "p99 to bare", "target"), rows)


def peers_table(figures: Figures) -> str:
    """Return each peer's rates: to the bare Tornado handler, and ours to it."""
    against = {(row["peer"], row["store"], row["kind"]): row for row in figures["against"]}
    rows = [
        (
            *(row["store"], row["kind"], row["server"], shown(row["rate"], 0), shown(row["ratio"])),
            *(shown(to_it["ratio"]), judged(to_it["ratio"], _aim_at_peer(row)), shown(to_it["cpu_ratio"])),
        )
        for row in figures["rows"]
        if (to_it := against.get((row["server"], row["store"], row["kind"])))
    ]
    header = (
        *("store", "request", "peer", "its requests/s", "it to bare Tornado"),
        *("ours to it", "target", "by CPU"),
    )
    return table(header, rows) if rows else "No peer was measured."


def _aim_at_peer(row: Figures) -> float | None:
    return READ_TO_EXPRESS[row["store"]] if (row["server"], row["kind"]) == ("express", "read") else None


def work_table(figures: Figures) -> str:
    """Return what each request has the database do."""
    rows = [
        (row["store"], row["server"], row["kind"], format_operations(row["operations"]))
        for row in figures["rows"]
        if row["store"] != "memory" and row["kind"] != "bare"
    ]
    return table(("store", "server", "request", "operations of the database for one request"), rows)


def setting(figures: Figures) -> str:
    """Return in a few lines how it was measured."""
    told_of = figures["about"]
    pinned = "server on a core of its own" if told_of["pinned"] else "NOT pinned: server and load share cores"
    lines = [
        f"{told_of['when'][:10]}, {told_of['cores']} cores, {pinned}. Python {told_of['python']}, "
        f"Tornado {told_of['tornado']}; {told_of['generator']}, {told_of['connections']} connections. "
        f"{told_of['rounds']} rounds of {told_of['seconds']:g} s: median (lowest–highest).",
        *(f"{name}: {what}." for name, what in figures.get("notes", {}).items()),
    ]
    return "\n\n".join(lines)


def bench_report(figures: Figures) -> str:
    """Return all that `make bench` found."""
    tables = (rate_table, latency_table, peers_table, work_table)
    return "\n\n".join([setting(figures), *(each(figures) for each in tables)])


def scale_report(figures: Figures) -> str:
    """Return all that `make scale` found: a table for each axis."""
    tables = [_scale_table(axis, rows) for axis, rows in figures["axes"].items() if rows]
    return "\n\n".join([setting(figures), *tables])


def _scale_table(axis: str, rows: Sequence[Figures]) -> str:
    header = (
        *("store", axis, "request", "requests/s", "to bare", f"to “{rows[0]['at']}”"),
        *("by CPU", "p99 ms", "p99 to bare", "bytes a session", "target"),
    )
    lines = [
        (
            *(row["store"], str(row["at"]), row["kind"], shown(row["rate"], 0), shown(row["ratio"])),
            *(shown(row["to_first"]), shown(row["to_first_cpu"])),
            *(shown(row["p99_ms"], 1), shown(row["p99_ratio"], 2)),
            *(f"{row['bytes_each']:.0f}" if row["bytes_each"] else "", _aim(axis, row)),
        )
        for row in rows
    ]
    return table(header, lines)


def _aim(axis: str, row: Figures) -> str:
    if (axis, row["at"], row["kind"]) == ("sessions", MILLION, "read"):
        return judged(row["to_first"], MANY_TO_FEW)
    if (axis, row["at"]) == ("users", BESIDE):
        return judged(row["to_first"], MANY_TO_FEW)
    return judged(row["p99_ratio"], P99_TO_BARE, at_most=True) if axis == "concurrency" else ""
