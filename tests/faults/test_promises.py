"""What counts as a broken promise."""

from __future__ import annotations

import pytest

from tests.faults.journal import Journal
from tests.faults.site import PATIENCE_S
from tests.faults.suite import Fault, SetUp, broken_promises


async def nothing(set_up: SetUp) -> None:
    """Do nothing."""


def journal(*errors: str, longest_s: float = 0.1) -> Journal:
    """Return the journal of clients that saw *errors*."""
    found = Journal(longest_s=longest_s)
    found.errors.update(errors)
    return found


@pytest.mark.parametrize("error", ["503", "no answer"])
def test_an_outage_may_be_felt(error: str) -> None:
    """Unless the fault is one that nobody may notice."""
    seen = journal(error)

    assert broken_promises(seen, Fault("a fault", nothing), 0) == []
    assert broken_promises(seen, Fault("a fault", nothing, is_seamless=True), 0) == [
        f"failed with {error}: 1"
    ]


def test_no_other_status_is_excused() -> None:
    """A 500 is a broken promise under every fault."""
    assert broken_promises(journal("500", "500"), Fault("a fault", nothing), 0) == ["failed with 500: 2"]


def test_a_request_that_hangs_is_a_broken_promise() -> None:
    """Its client waited as long as it could, and had no answer."""
    seen = journal("no answer", longest_s=PATIENCE_S)

    assert broken_promises(seen, Fault("a fault", nothing), 0) == [f"request of {PATIENCE_S:.0f} s: 1"]


def test_an_excuse_is_for_its_column_alone() -> None:
    """A session that came back is not excused by a reason for lost writes."""
    seen = journal()
    seen.back.append("a cookie")
    fault = Fault("a fault", nothing, excused={"lost": "the store has no persistence"})

    assert broken_promises(seen, fault, 0) == ["back: 1"]
