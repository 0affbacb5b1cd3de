"""Rounds of measurements: order, ratios within a round, invalid samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.harness import rounds
from benchmarks.harness.generator import Sample


def sample(rate: float, *, p99_ms: float = 10, failures: int = 0) -> Sample:
    """Return a sample of two seconds."""
    return Sample(round(2 * rate), 2.0, 1.0, 5.0, p99_ms, failures)


def test_spread_is_median_lowest_and_highest() -> None:
    """One outlier changes the highest value, not the median."""
    assert rounds.spread([3, 100, 1, 2]) == rounds.Spread(2.5, 1, 100)
    assert rounds.spread([]) is None


def test_every_other_round_is_in_reverse_order() -> None:
    """A case that is first in one round is last in the next."""
    order: list[str] = []

    def measure(name: str) -> Any:
        return lambda: order.append(name) or sample(1)

    found = rounds.measure_rounds({name: measure(name) for name in "abc"}, 3)

    assert "".join(order) == "abccbaabc"
    assert [set(each) for each in found] == [set("abc")] * 3


def test_ratios_compare_samples_of_one_round() -> None:
    """A machine that becomes half as fast during a run changes no ratio."""
    found = [{"bare": sample(1000), "read": sample(800)}, {"bare": sample(500), "read": sample(400)}]

    assert rounds.ratio_spread(found, "read", "bare") == rounds.Spread(0.8, 0.8, 0.8)


def test_a_failed_sample_is_not_counted() -> None:
    """Neither in the metrics nor in a ratio, on either side; the number of failures is counted."""
    found = [
        {"bare": sample(1000), "read": sample(500)},
        {"bare": sample(1000), "read": sample(9000, failures=1)},
        {"bare": sample(10, failures=1), "read": sample(500)},
    ]

    assert rounds.ratio_spread(found, "read", "bare") == rounds.Spread(0.5, 0.5, 0.5)
    assert rounds.result_row(found, "read", "bare")["rate"] == {"median": 500, "low": 500, "high": 500}
    assert rounds.failures(found, "read") == 1


def test_a_row_compares_the_99th_percentile_too() -> None:
    """Here it is twice the bare handler's in the same round."""
    found = [{"bare": sample(1000, p99_ms=7), "read": sample(800, p99_ms=14)}]

    assert rounds.result_row(found, "read", "bare")["p99_ratio"] == {"median": 2, "low": 2, "high": 2}


def test_a_case_that_always_failed_has_no_ratio() -> None:
    """It is None, not zero, which would look like a measurement."""
    found = [{"bare": sample(1000), "read": sample(0)}]

    assert rounds.result_row(found, "read", "bare")["ratio"] is None


def test_cpu_time_is_reported_per_request() -> None:
    """1.5 seconds of CPU time in two seconds, for 3000 requests."""
    found = replace(sample(1500), server_s=1.5)

    assert found.cpu_us == pytest.approx(500)
    assert found.busy == pytest.approx(0.75)
