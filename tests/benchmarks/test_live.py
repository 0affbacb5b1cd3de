"""The benchmark of live sockets: its figures and its tables."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import live
from benchmarks.sockets.tables import CHECK, PUSH, live_report


def test_quantiles_are_times_that_were_measured() -> None:
    """Of a hundred, the 99th percentile is the second longest."""
    assert live.quantiles_ms([n / 1000 for n in range(1, 101)]) == {"p50": 50.5, "p99": 99.0, "max": 100.0}
    assert live.quantiles_ms([0.004]) == {"p50": 4.0, "p99": 4.0, "max": 4.0}
    assert live.quantiles_ms([]) is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--per-s=0"], "--per-s must be positive, not 0.0"),
        (["--rounds=-1"], "--rounds must be positive, not -1"),
        (["--many=100"], "--many must be 0 or above 100, not 100"),
        (["--sockets=10", "--ends=11"], "--ends: 11 is more than the 10 of --sockets"),
    ],
)
def test_impossible_measurement_is_refused(
    arguments: list[str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before a server starts."""
    monkeypatch.setattr("sys.argv", ["live", *arguments])
    with pytest.raises(SystemExit):
        live.main()

    assert problem in capsys.readouterr().err


def row(found_by: str, p50: float, p99: float, highest: float) -> dict[str, Any]:
    """Return a row of results for a logout."""
    times = {"p50": p50, "p99": p99, "max": highest}
    return {
        **{"store": "redis", "found_by": found_by, "way": "logout", "interval_s": 2, "after_all_s": None},
        **{
            "ended": 500,
            "lost": 1,
            "wrong": 2,
            "request": times,
            "answer": times,
            "bare": {"p50": 2.0, "p99": 5.0},
        },
    }


def test_report_shows_each_target_next_to_its_result() -> None:
    """Times of pushes in ms, those of checks in intervals."""
    about = {
        **{"when": "2026-01-02T03:04:05+00:00", "cores": 2, "python": "3.11", "tornado": "6.6"},
        **{"load_before": 0.1, "load_after": 2.0, "sockets": 1000, "ends": 500, "per_s": 50, "rounds": 1},
    }
    latency = [row(PUSH, 20, 51, 60), row(CHECK, 1000, 1800, 2100)]
    report = live_report({"about": about, "latency": latency, "capacity": []})

    assert "load average 0.1 before and 2.0 after" in report
    pushed, checked = [
        line for line in report.splitlines() if line.startswith("| redis | logout | 500 | 1 | 2 |")
    ]
    assert "| 2.0 | 5.0 | 10.0 | ≤ 20 met, ≤ 50 missed |" in pushed
    assert "| 2 s | 0.50 | 0.90 | 1.05 | ≤ 1 missed |" in checked
