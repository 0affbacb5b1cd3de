"""What counts as a broken promise."""

from __future__ import annotations

import time

import pytest

from tests.faults.journal import Journal
from tests.faults.site import PATIENCE_S
from tests.faults.suite import ENDS, Fault, SetUp, broken_promises, step


async def nothing(set_up: SetUp) -> None:
    """Do nothing."""


def journal(*errors: str, longest_s: float = 0.1) -> Journal:
    """Return the journal of clients that saw *errors*."""
    found = Journal(longest_s=longest_s)
    found.errors.update(errors)
    return found


def test_an_outage_may_be_felt() -> None:
    """Unless the fault is one that nobody may notice."""
    seen = journal("503")

    assert broken_promises(seen, Fault("a fault", nothing), {}) == []
    assert broken_promises(seen, Fault("a fault", nothing, is_seamless=True), {}) == ["failed with 503: 1"]


def test_a_request_without_an_answer_needs_the_end_of_a_process() -> None:
    """A store that fails neither breaks a connection of a client nor ends a process."""
    seen, logged = journal("no answer"), {"process ended": 1}

    assert broken_promises(seen, Fault("a fault", nothing), logged) == [
        "process ended: 1",
        "failed with no answer: 1",
    ]
    assert broken_promises(seen, Fault("a fault", nothing, expected=ENDS), logged) == []


def test_no_other_status_is_excused() -> None:
    """A 500 is a broken promise under every fault."""
    assert broken_promises(journal("500", "500"), Fault("a fault", nothing), {}) == ["failed with 500: 2"]


def test_a_request_that_hangs_is_a_broken_promise() -> None:
    """Its client waited as long as it could, and had no answer."""
    seen = journal("no answer", longest_s=PATIENCE_S)
    fault = Fault("a fault", nothing, expected=ENDS)

    assert broken_promises(seen, fault, {}) == [f"request of {PATIENCE_S:.0f} s: 1"]


def test_an_excuse_is_for_its_column_alone() -> None:
    """A session that came back is not excused by a reason for lost writes."""
    seen = journal()
    seen.back.append("a cookie")
    fault = Fault("a fault", nothing, excused={"lost": "the store has no persistence"})

    assert broken_promises(seen, fault, {}) == ["back: 1"]


def test_recovery_counts_requests_that_wait() -> None:
    """A set-up is quiet only when nobody waits, and served again when those who waited have their answer."""
    found, now = Journal(), time.monotonic()
    request = found.begin()
    found.pending[request] = now - 5.0
    waits = found.is_quiet(now - 3.0, for_s=1.0)
    found.end(request, None)

    assert (waits, found.is_quiet(now - 3.0, for_s=1.0)) == (False, True)
    assert found.served_again(now - 3.0) == found.requests[0][1]
    assert found.served_again(now - 6.0) == now - 6.0


@pytest.mark.gen_test
async def test_an_error_of_the_suite_itself_ends_one_fault_alone() -> None:
    """Whatever is raised while a fault is inflicted is a problem of that fault."""

    async def inflict() -> None:
        raise RuntimeError("the set never became whole")

    assert await step("it was inflicted", inflict()) == ["while it was inflicted: the set never became whole"]
