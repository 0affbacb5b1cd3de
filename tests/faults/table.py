"""The table of all faults, as text and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable

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
)


def row(result: Result) -> tuple[str, ...]:
    """Return one line of the table."""
    journal = result.journal
    errors = ", ".join(f"{number} × {kind}" for kind, number in sorted(journal.errors.items()))
    return (
        result.fault.name,
        result.store,
        errors or "none",
        f"{journal.longest_s:.1f} s",
        f"{result.recovery_s:.1f} s",
        str(len(journal.lost)),
        str(len(journal.back)),
        str(len(journal.signed_out)),
        str(len(journal.somebody_else)),
    )


def markdown(results: Iterable[Result]) -> str:
    """Return the table in Markdown, and why each number that is not 0 may be so."""
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|---|--:|--:|--:|--:|--:|--:|"]
    reasons: list[str] = []
    for result in results:
        lines.append(f"| {' | '.join(row(result))} |")
        reasons += [reason for reason in result.fault.excused.values() if reason not in reasons]
    return "\n".join([*lines, "", *(f"- {reason}" for reason in reasons)]) + "\n"
