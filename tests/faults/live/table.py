"""The table of all faults under open sockets, as text and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from tests.faults.live.trial import Verdict

HEAD = ("fault", "store", "closed", "median", "longest", "after the outage", "afterwards", "wrong")


def row(verdict: Verdict) -> tuple[str, ...]:
    """Return one line of the table."""
    closes = verdict.trial.closes
    return (
        verdict.trial.fault.name,
        verdict.store,
        f"{len(verdict.late_s) + len(verdict.push_s)} of 24" if closes is None else f"all, {closes.value}",
        _seconds(verdict.late_s, median),
        _seconds(verdict.late_s, max),
        _seconds(verdict.excess_s, max),
        _seconds(verdict.push_s, max),
        str(len(verdict.problems)),
    )


def markdown(verdicts: Iterable[Verdict]) -> str:
    """Return the table in Markdown."""
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (HEAD, *map(row, verdicts)))
    return "\n".join([head, "|---|---|---|--:|--:|--:|--:|--:|", *lines]) + "\n"


def _seconds(times_s: Sequence[float], choose: object) -> str:
    assert callable(choose)
    return f"{choose(times_s):.2f} s" if times_s else ""
