"""Rounds of measurements, and statistics over them.

Noise on the machine lasts longer than a sample. So only samples of the same round are compared, and the
result is the median of those ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, TypeVar

from benchmarks.harness.generator import Sample

K = TypeVar("K", bound=Hashable)
Metric = Callable[[Sample], float]
Round = Mapping[K, Sample]
"""The samples of all cases, measured shortly after each other."""

RATE: Metric = attrgetter("rate")
"""Requests per second."""
REPORTED = ("rate", "p50_ms", "p90_ms", "p99_ms", "cpu_us", "busy")
"""The attributes of a sample that are reported."""

P99: Metric = attrgetter("p99_ms")
CPU: Metric = attrgetter("cpu_us")


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, lowest and highest of several values."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread | None:
    """Return the spread of *values*; None if there are none."""
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1]) if ordered else None


def measure_rounds(cases: Mapping[K, Callable[[], Sample]], rounds: int) -> list[Round[K]]:
    """Measure each of *cases* once per round; every other round runs in reverse order.

    So a slower machine, or the after-effects of a case, do not always affect the same case.
    """
    names = list(cases)
    return [
        {name: cases[name]() for name in (reversed(names) if number % 2 else names)}
        for number in range(rounds)
    ]


def spread_of(rounds: Sequence[Round[K]], case: K, metric: Metric) -> Spread | None:
    """Return the spread of *metric* of *case* over the rounds in which its sample is valid."""
    return spread(metric(each[case]) for each in rounds if each[case].is_valid)


def ratio_spread(rounds: Sequence[Round[K]], case: K, to: K, metric: Metric = RATE) -> Spread | None:
    """Return the spread of the ratio *case* / *to* of *metric*, each ratio within one round."""
    return spread(
        metric(each[case]) / metric(each[to])
        for each in rounds
        if each[case].is_valid and each[to].is_valid and metric(each[to])
    )


def failures(rounds: Sequence[Round[K]], case: K) -> int:
    """Return the number of rounds in which *case* failed."""
    return sum(not each[case].is_valid for each in rounds)


def result_row(rounds: Sequence[Round[K]], case: K, bare: K) -> dict[str, Any]:
    """Return the metrics of *case* and their ratios to *bare* in the same round, as JSON values."""
    measured = {name: spread_of(rounds, case, attrgetter(name)) for name in REPORTED}
    compared = {
        "ratio": ratio_spread(rounds, case, bare),
        # Inverse, so that it equals "ratio" if only the server limits the rate.
        "cpu_ratio": ratio_spread(rounds, bare, case, CPU),
        "p99_ratio": ratio_spread(rounds, case, bare, P99),
    }
    found = {name: as_json(spread) for name, spread in (measured | compared).items()}
    return {**found, "failed": failures(rounds, case)}


def as_json(spread: Spread | None) -> dict[str, float] | None:
    """Return *spread* as a JSON value."""
    return None if spread is None else asdict(spread)
