"""Rounds of measurements in turn, and what is made of them.

The machine is noisy, and its noise lasts longer than a sample: only what was measured in the same round is
compared, and the median of those ratios counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, TypeVar

from benchmarks.harness.generator import Sample

K = TypeVar("K", bound=Hashable)
Figure = Callable[[Sample], float]
Round = Mapping[K, Sample]
"""What was measured close together."""

RATE: Figure = attrgetter("rate")
"""Requests a second."""
FIGURES = ("rate", "p50_ms", "p90_ms", "p99_ms", "cpu_us", "busy")
"""Of a sample, those that are reported."""

P99: Figure = attrgetter("p99_ms")
CPU: Figure = attrgetter("cpu_us")


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several figures, and between what they lie."""

    median: float
    low: float
    high: float


def spread(figures: Iterable[float]) -> Spread | None:
    """Return the spread of *figures*; None if there are none."""
    found = sorted(figures)
    return Spread(statistics.median(found), found[0], found[-1]) if found else None


def in_turn(cases: Mapping[K, Callable[[], Sample]], rounds: int) -> list[Round[K]]:
    """Measure each of *cases* once a round, every other round backwards.

    So neither what a case leaves behind nor a machine that gets slower falls always on the same one.
    """
    names = list(cases)
    return [
        {name: cases[name]() for name in (reversed(names) if number % 2 else names)}
        for number in range(rounds)
    ]


def figures(rounds: Sequence[Round[K]], case: K, figure: Figure) -> Spread | None:
    """Return a *figure* of *case* over those rounds in which it is valid."""
    return spread(figure(each[case]) for each in rounds if each[case].is_valid)


def ratios(rounds: Sequence[Round[K]], case: K, to: K, figure: Figure = RATE) -> Spread | None:
    """Return a *figure* of *case* as a ratio *to* that of another in the same round."""
    return spread(
        figure(each[case]) / figure(each[to])
        for each in rounds
        if each[case].is_valid and each[to].is_valid and figure(each[to])
    )


def failures(rounds: Sequence[Round[K]], case: K) -> int:
    """Return in how many rounds *case* failed."""
    return sum(not each[case].is_valid for each in rounds)


def row(rounds: Sequence[Round[K]], case: K, bare: K) -> dict[str, Any]:
    """Return the figures of *case*, and how they compare with *bare* in the same round, as JSON has them."""
    measured = {name: figures(rounds, case, attrgetter(name)) for name in FIGURES}
    compared = {
        "ratio": ratios(rounds, case, bare),
        # Of bare to the case, so that it is like the other where the server is all that limits.
        "cpu_ratio": ratios(rounds, bare, case, CPU),
        "p99_ratio": ratios(rounds, case, bare, P99),
    }
    found = {name: as_json(spread) for name, spread in (measured | compared).items()}
    return {**found, "failed": failures(rounds, case)}


def as_json(spread: Spread | None) -> dict[str, float] | None:
    """Return *spread* as JSON has it."""
    return None if spread is None else asdict(spread)
