"""What counts as a broken promise to open sockets, and one fault that keeps all of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from stormcellar.sessions.live.watched import End
from tests.faults.live.holders import Holder
from tests.faults.live.program import PATIENCE_S, RECHECK_S, SHORT_PATIENCE_S
from tests.faults.live.set_ups import SET_UPS
from tests.faults.live.table import markdown
from tests.faults.live.trial import (
    TOLERANCE_S,
    Trial,
    Trials,
    Verdict,
    all_closed,
    closed_although_live,
    not_closed_in_time,
    run,
)
from tests.faults.suite import Fault

SMOKE = [trials for trials in SET_UPS if any(trial.in_smoke for trial in trials.trials)]
LATE_S = RECHECK_S + TOLERANCE_S + 0.1
SIGNED_OUT = (4401, "signed_out")


def holder(**times: Any) -> Holder:
    """Return one with these attributes."""
    found = Holder.__new__(Holder)
    vars(found).update({"asked_s": None, "ended_s": None, "closed_s": None, "close": (None, None), **times})
    return found


def test_socket_may_wait_for_a_check_and_for_the_store() -> None:
    """Until the time of a check after the end, or after the outage."""
    at_once = holder(asked_s=9.9, ended_s=10.0, closed_s=9.95, close=SIGNED_OUT)
    later = holder(asked_s=9.9, ended_s=10.0, closed_s=10.0 + LATE_S, close=SIGNED_OUT)

    assert not_closed_in_time([at_once], 0.0) == []
    assert not_closed_in_time([later], 11.0) == []
    assert not_closed_in_time([later], 0.0) == ["a socket outlived its session by 4.1 s"]


@pytest.mark.parametrize(
    "broken",
    [
        {"closed_s": None},
        {"closed_s": 10.1, "close": (1006, None)},
        {"closed_s": 10.1, "close": (4401, "expired")},
        {"closed_s": 9.8},
        {"closed_s": 10.1 + PATIENCE_S + TOLERANCE_S},
    ],
)
def test_socket_of_an_ended_session_has_one_way_to_close(broken: dict[str, Any]) -> None:
    """With 4401 and the reason, and neither before the end nor after the patience."""
    ended = holder(**{"asked_s": 9.9, "ended_s": 10.0, "close": SIGNED_OUT, **broken})

    assert len(not_closed_in_time([ended], 100.0)) == 1


def test_socket_of_a_live_session_stays() -> None:
    """Whatever the code is."""
    assert closed_although_live([holder()]) == []
    assert len(closed_although_live([holder(closed_s=1.0, close=(1013, "store_down"))])) == 1


@pytest.mark.parametrize(
    ("end", "code", "after_s", "problems"),
    [
        (End.EXPIRED, 4401, 0.5, 0),
        (End.EXPIRED, 4401, LATE_S, 1),
        (End.EXPIRED, 1013, 0.5, 1),
        (End.STORE_DOWN, 1013, SHORT_PATIENCE_S + 1.0, 0),
        (End.STORE_DOWN, 1013, SHORT_PATIENCE_S - 1.0, 1),
        (End.STORE_DOWN, 1013, SHORT_PATIENCE_S + 30.0, 1),
    ],
)
def test_fault_that_closes_all(end: End, code: int, after_s: float, problems: int) -> None:
    """At the end of the time, and not before."""
    closed = holder(closed_s=100.0 + after_s, close=(code, end.value))

    assert len(all_closed([closed], end, 100.0)) == problems
    assert all_closed([holder()], end, 100.0) == ["a socket is open"]


def test_table_has_a_line_for_each_fault() -> None:
    """With the times of those that ended, or the reason for which all were closed."""

    async def nothing(_: object) -> None:
        pass

    some = Verdict("Redis", Trial(Fault("killed", nothing)), [0.1, 0.2, 0.9], [0.05], [0.01], [])
    every = Verdict(
        "Redis", Trial(Fault("down", nothing), closes=End.STORE_DOWN), [7.0, 8.0], [], [], ["open"]
    )

    assert markdown([some, every]).splitlines()[2:] == [
        "| killed | Redis | 4 of 24 | 0.20 s | 0.90 s | 0.05 s | 0.01 s | 0 |",
        "| down | Redis | all, store_down | 7.50 s | 8.00 s |  |  | 1 |",
    ]


@pytest.mark.needs_server
@pytest.mark.parametrize("trials", SMOKE, ids=lambda trials: trials.store)
def test_sockets_end_with_their_sessions(trials: Trials, tmp_path: Path) -> None:
    """None outlives its session by more than a check, and none of a live session is closed."""

    async def undergo() -> list[Verdict]:
        selected = [trial for trial in trials.trials if trial.in_smoke]
        return [verdict async for verdict in run(trials, selected, tmp_path / "site")]

    for verdict in asyncio.run(undergo()):
        assert verdict.problems == []
        assert verdict.late_s and verdict.push_s
