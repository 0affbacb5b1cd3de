"""The report: targets, tables, and the page that contains them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import report
from benchmarks.harness import rounds, tables
from benchmarks.harness.targets import verdict


def spread(median: float) -> dict[str, float]:
    """Return a spread as a JSON value."""
    return {"median": median, "low": median - 0.1, "high": median + 0.1}


def row(name: str, kind: str, ratio: float) -> dict[str, Any]:
    """Return a row of results with Redis."""
    timed = {metric: spread(9) for metric in rounds.REPORTED}
    compared = {"ratio": spread(ratio), "cpu_ratio": spread(ratio), "p99_ratio": spread(1.5)}
    return {
        "server": name,
        "store": "redis",
        "kind": kind,
        **timed,
        **compared,
        "operations": {"hgetall": 1.0},
    }


RESULTS = {
    "about": {
        "when": "2026-01-02T03:04:05+00:00",
        **{"cores": 2, "pinned": True, "python": "3.11", "tornado": "6.6", "generator": "wrk -t1"},
        **{"connections": 32, "rounds": 9, "seconds": 2},
    },
    "notes": {"django": "not measured: no network"},
    "rows": [row("stormcellar", "read", 0.8), row("stormcellar", "write", 0.7), row("express", "read", 0.5)],
    "against": [
        {
            "peer": "express",
            "store": "redis",
            "kind": "read",
            **dict.fromkeys(("ratio", "cpu_ratio"), spread(1.6)),
        }
    ],
}


@pytest.mark.parametrize(
    ("value", "target", "at_most", "word"),
    [
        (0.9, 0.9, False, "met"),
        (0.899, 0.9, False, "missed"),
        (2.0, 2.0, True, "met"),
        (2.1, 2, True, "missed"),
    ],
)
def test_a_target_is_met_at_its_value(value: float, target: float, at_most: bool, word: str) -> None:
    """It is missed by any worse value."""
    assert verdict(value, target, at_most=at_most) == word


def test_the_report_shows_each_target_next_to_its_result() -> None:
    """For the bare handler and for Express; it names peers that were not measured."""
    lines = tables.bench_report(RESULTS).splitlines()

    assert "django: not measured: no network." in lines
    read, latency = [line for line in lines if line.startswith("| redis | read | 9")]
    assert "0.800 (0.70–0.90) | ≥ 0.80 met" in read
    assert "≤ 2.00 met" in latency
    assert any(line.startswith("| redis | write | 9") and "≥ 0.75 missed" in line for line in lines)
    (peer,) = [line for line in lines if "| express |" in line and "1.600" in line]
    assert "≥ 1.30 met" in peer


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    """The table shows this for a case that failed in every round."""
    assert tables.format_spread(None) == "failed"
    assert tables.format_target(None, 0.9) == "≥ 0.90 not measured"


def test_tables_are_replaced_between_their_markers() -> None:
    """The rest of the page stays the same; a second replacement changes nothing."""
    page = "before\n<!-- begin: bench -->\nold\n<!-- end: bench -->\nafter\n"
    once = report.replace_section(page, "bench", r"| new \1 |")

    assert once == "before\n<!-- begin: bench -->\n\n| new \\1 |\n\n<!-- end: bench -->\nafter\n"
    assert report.replace_section(once, "bench", r"| new \1 |") == once
    with pytest.raises(ValueError, match="0 pairs of markers called 'scale'"):
        report.replace_section(page, "scale", "")


def test_the_page_has_markers_for_each_report() -> None:
    """docs/performance.md has the markers that `python -m benchmarks.report` needs."""
    page = report.PAGE.read_text()

    for name in report.REPORTS:
        assert report.replace_section(page, name, "x") != page
