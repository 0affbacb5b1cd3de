"""The table: each number that may be other than 0 has a letter, and each letter its reason."""

from __future__ import annotations

from collections import Counter

from tests.faults.journal import Journal
from tests.faults.suite import Fault, Result
from tests.faults.table import markdown, row


async def _nothing(_: object) -> None:
    pass


def result(name: str, excused: dict[str, str], **found: object) -> Result:
    """Return the result of a fault of this name."""
    return Result("Redis", Fault(name, _nothing, excused), Journal(**found), 0.25, [])  # type: ignore[arg-type]


def test_reasons_are_told_once_and_where_they_are_needed() -> None:
    """A reason that several faults share has one letter; an excuse that was not needed has none."""
    results = [
        result("killed", {"lost": "It is old.", "back": "Never."}, lost=["x", "y"]),
        result("frozen", {"lost": "It is old.", "signed out": "It ended."}, lost=["x"], signed_out=["z"]),
        result("cut", {}, errors=Counter({"503": 2, "no answer": 1}), longest_s=1.26, in_doubt=3),
    ]

    assert markdown(results).splitlines()[2:] == [
        "| killed | Redis | none | 0.0 s | 0.2 s | 2 (a) | 0 | 0 | 0 | 0 |",
        "| frozen | Redis | none | 0.0 s | 0.2 s | 1 (a) | 0 | 1 (b) | 0 | 0 |",
        "| cut | Redis | 2 × 503, 1 × no answer | 1.3 s | 0.2 s | 0 | 0 | 0 | 0 | 3 |",
        "",
        "- (a) It is old.",
        "- (b) It ended.",
    ]
    assert row(results[0])[-5:] == ("2", "0", "0", "0", "0")
