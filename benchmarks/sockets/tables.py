"""The results of `make bench-live` as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.tables import Results, markdown_table
from benchmarks.harness.targets import BLOCK_MS, EVERYWHERE_S, PUSH_MEDIAN_MS, PUSH_P99_MS, verdict

PUSH, CHECK, TIMER, STOP = "push", "check", "timer", "stop"
"""How a process finds out that a session is over."""


def live_report(results: Results) -> str:
    """Return the report of `make bench-live`."""
    tables = (_push_table, _at_once_table, _check_table, _capacity_table)
    parts = [_conditions(results), *(table(results) for table in tables)]
    return "\n\n".join(part for part in parts if part)


def _conditions(results: Results) -> str:
    about = results["about"]
    before, after = about["load_before"], about["load_after"]
    return " ".join(
        [
            f"{about['when'][:10]}, {about['cores']} cores shared by all processes;",
            f"load average {before:.1f} before and {after:.1f} after.",
            f"Python {about['python']}, Tornado {about['tornado']}.",
            f"{about['sockets']} sockets; per way {about['ends']} ends, at most {about['per_s']:g} a second;",
            f"rounds: {about['rounds']}. Times in ms where no unit stands.",
        ]
    )


def _rows(results: Results, found_by: str) -> list[Results]:
    return [row for row in results["latency"] if row["found_by"] == found_by]


def _times(times: Results | None) -> tuple[str, str, str]:
    """Return median, 99th percentile and maximum as text."""
    if times is None:
        return "", "", ""
    return f"{times['p50']:.1f}", f"{times['p99']:.1f}", f"{times['max']:.1f}"


def _target(value: float, target: float, unit: str = "") -> str:
    return f"≤ {target:g}{unit} {verdict(value, target, at_most=True)}"


def _counts(row: Results) -> tuple[str, str, str]:
    return str(row["ended"]), str(row["lost"]), str(row["wrong"])


def _push_table(results: Results) -> str:
    """Return the ways that end one session after the other, while announcements arrive."""
    rows = [
        (
            *(row["store"], row["way"], *_counts(row), *_times(row["request"]), *_times(row["answer"])),
            *(f"{row['bare'][name]:.1f}" for name in ("p50", "p99")),
            f"{row['request']['p50'] / row['bare']['p50']:.1f}",
            _target(row["request"]["p50"], PUSH_MEDIAN_MS)
            + ", "
            + _target(row["request"]["p99"], PUSH_P99_MS),
        )
        for row in _rows(results, PUSH)
        if row["bare"] and row["request"]
    ]
    header = (
        *("store", "ended by", "sockets", "lost", "wrong", "from request p50", "p99", "max"),
        *("from answer p50", "p99", "max", "bare request p50", "p99", "ratio", "target for p50 and p99"),
    )
    return markdown_table(header, rows) if rows else ""


def _at_once_table(results: Results) -> str:
    """Return the ways that end many sessions at once, and the lateness of expiry."""
    rows = [
        (
            row["store"],
            row["way"],
            *_counts(row),
            *_times(row["answer"] or row["request"]),
            _at_once_target(row),
        )
        for row in results["latency"]
        if row["found_by"] in (TIMER, STOP) or (row["found_by"] == PUSH and not row["bare"])
    ]
    header = ("store", "ended by", "sockets", "lost", "wrong", "p50", "p99", "max", "target")
    return markdown_table(header, rows) if rows else ""


def _at_once_target(row: Results) -> str:
    if row["after_all_s"] is None:
        return ""
    return "after the answer " + _target(row["after_all_s"], EVERYWHERE_S, " s")


def _check_table(results: Results) -> str:
    """Return the ends that only the regular check finds, as shares of its interval."""
    rows = [
        (
            *(row["store"], row["way"], *_counts(row), f"{row['interval_s']:g} s"),
            *(f"{row['answer'][name] / 1000 / row['interval_s']:.2f}" for name in ("p50", "p99", "max")),
            _target(row["answer"]["max"] / 1000 / row["interval_s"], 1),
        )
        for row in _rows(results, CHECK)
        if row["answer"]
    ]
    header = (
        *("store", "ended by, not announced", "sockets", "lost", "wrong", "interval"),
        *("p50 in intervals", "p99", "max", "target for max"),
    )
    return markdown_table(header, rows) if rows else ""


def _capacity_table(results: Results) -> str:
    """Return what very many sockets of one process cost."""
    rows = [row for each in results["capacity"] for row in _capacity_rows(each)]
    return markdown_table(("store", "sockets of one process", "", "target"), rows) if rows else ""


def _capacity_rows(row: Results) -> Sequence[tuple[str, str, str, str]]:
    store, count = row["store"], row["sockets"]

    def line(what: str, value: str, target: str = "") -> tuple[str, str, str, str]:
        return store, f"{count}: {what}", value, target

    kinds = {"plain": "of Tornado alone", "visitor": "without a session", "socket": "with a session"}
    sizes = {text: row[f"{kind}_bytes"] / 1024 for kind, text in kinds.items()}
    times_us = {text: row[f"{kind}_open_us"] for kind, text in kinds.items()}
    blocks_ms = {
        "during these checks": row["check_block_ms"],
        f"while {row['signed_out']} other sessions of one user are signed out": row["everywhere_block_ms"],
    }
    return [
        *(line(f"memory of one {text}", f"{size:.1f} KiB") for text, size in sizes.items()),
        *(
            line(f"CPU time of the server to open one {text}", f"{us:.0f} µs")
            for text, us in times_us.items()
        ),
        line(
            f"regular checks every {row['interval_s']:g} s, and pings every 30 s",
            f"{row['check_share']:.1%} of a core",
        ),
        *(
            line(f"longest block of the event loop {when}", f"{ms:.1f} ms", _target(ms, BLOCK_MS))
            for when, ms in blocks_ms.items()
        ),
        line("sockets of live sessions that were closed", str(row["closed"])),
    ]
