"""The table of all faults, as text and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_lowercase

from tests.faults.suite import Result

HEAD = (
    "fault",
    "store",
    "errors",
    "longest request",
    "recovery",
    "lost",
    "ended, back",
    "signed out",
    "somebody else",
    "in doubt",
)


def row(result: Result) -> tuple[str, ...]:
    """Return one line of the table."""
    return (*_text(result), *map(str, _counts(result).values()))


def markdown(results: Iterable[Result]) -> str:
    """Return the table in Markdown, with a letter at each number that has a reason."""
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    letters: dict[str, str] = {}
    for result in results:
        cells = []
        for column, count in _counts(result).items():
            reason = result.fault.excused.get(column)
            if count and reason:
                letter = letters.setdefault(reason, ascii_lowercase[len(letters)])
                cells.append(f"{count} ({letter})")
            else:
                cells.append(str(count))
        lines.append(f"| {' | '.join([*_text(result), *cells])} |")
    return "\n".join([*lines, "", *(f"- ({letter}) {reason}" for reason, letter in letters.items())]) + "\n"


def _text(result: Result) -> list[str]:
    journal = result.journal
    errors = ", ".join(f"{number} × {kind}" for kind, number in sorted(journal.errors.items()))
    times = f"{journal.longest_s:.1f} s", f"{result.recovery_s:.1f} s"
    return [result.fault.name, result.store, errors or "none", *times]


def _counts(result: Result) -> dict[str, int]:
    journal = result.journal
    return {
        "lost": len(journal.lost),
        "back": len(journal.back),
        "signed out": len(journal.signed_out),
        "somebody else": len(journal.somebody_else),
        "in doubt": journal.in_doubt,
    }
