"""One fault at a time on one set-up, under open sockets, and when each of them was closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stormcellar.sessions.live.watched import End
from tests.faults.live.holders import Holder, Holders
from tests.faults.live.program import PATIENCE_S, RECHECK_S, SHORT_PATIENCE_S
from tests.faults.site import count_logged
from tests.faults.suite import Fault, SetUp, step

TOLERANCE_S = 1.0
"""For a busy machine."""
DURING, AFTER, AT_LAST = 10, 4, 4
"""How many sessions are ended while the fault lasts, right after it, and when all has been quiet."""
EVERY_S = 0.4
CODES = {End.EXPIRED: 4401, End.STORE_DOWN: 1013}


@dataclass(frozen=True, slots=True)
class Trial:
    """A fault, and what it does to open sockets.

    Args:
        closes: Why it closes every socket; None: it closes none whose session is live.
    """

    fault: Fault
    closes: End | None = None
    in_smoke: bool = False


@dataclass(frozen=True, slots=True)
class Trials:
    """The faults of one set-up. See `Suite`."""

    store: str
    open: Callable[[Path], AbstractAsyncContextManager[Any]]
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one fault did. Times are in seconds."""

    store: str
    trial: Trial
    late_s: list[float]
    """For each session that was ended during the fault or after it: the time until its socket closed. After a
    fault that closes all: from its begin."""
    excess_s: list[float]
    """The same from the moment on at which the store could serve again, if that was later."""
    push_s: list[float]
    """The same for those that ended at last."""
    problems: list[str]
    """What is not as promised; empty if all is well."""


async def run(trials: Trials, selected: Sequence[Trial], directory: Path) -> AsyncIterator[Verdict]:
    """Run some of the faults on one set-up, one after another."""
    async with trials.open(directory) as set_up:
        for trial in selected:
            yield await _undergo(trials.store, set_up, trial)


async def _undergo(store: str, set_up: SetUp, trial: Trial) -> Verdict:
    before = count_logged(set_up.sites)["traceback"]
    async with Holders(set_up.base) as holders:
        await asyncio.sleep(0.5)
        began_s = time.monotonic()
        if trial.closes is not None:
            problems = await step("it was inflicted", trial.fault.inflict(set_up))
            problems += await _aftermath(set_up, trial)
            problems += all_closed(holders, trial.closes, began_s)
            times_s = [each.closed_s - began_s for each in holders if each.closed_s is not None]
            verdict = Verdict(store, trial, times_s, [], [], problems)
        else:
            verdict = await _end_some(store, set_up, trial, holders)
    if count_logged(set_up.sites)["traceback"] > before:
        verdict.problems.append("a traceback was logged")
    return verdict


async def _end_some(store: str, set_up: SetUp, trial: Trial, holders: list[Holder]) -> Verdict:
    during, after, last = holders[:DURING], holders[DURING : DURING + AFTER], holders[-AT_LAST:]
    ending = asyncio.ensure_future(_end_in_turn(during))
    problems = await step("it was inflicted", trial.fault.inflict(set_up))
    healed_s = time.monotonic()
    await asyncio.gather(ending, *(holder.sign_out() for holder in after))
    problems += await _aftermath(set_up, trial)
    await asyncio.sleep(RECHECK_S + TOLERANCE_S)
    undone = [each for each in during + after if each.closed_s is None and await each.is_accepted()]
    if undone and "back" not in trial.fault.excused:
        problems.append(f"{len(undone)} sign-outs were undone")
    ended = [each for each in during + after if each not in undone]
    await asyncio.gather(*(holder.sign_out() for holder in last))
    await asyncio.sleep(RECHECK_S + TOLERANCE_S)
    problems += not_closed_in_time([*ended, *last], healed_s)
    problems += closed_although_live([each for each in holders if each.asked_s is None])
    late, push = ([late_s(each) for each in group if each.closed_s] for group in (ended, last))
    excess = [late_s(each, healed_s) for each in ended if each.closed_s]
    return Verdict(store, trial, late, excess, push, problems)


async def _end_in_turn(holders: list[Holder]) -> None:
    endings = []
    for holder in holders:
        endings.append(asyncio.ensure_future(holder.sign_out()))
        await asyncio.sleep(EVERY_S)
    await asyncio.gather(*endings)


async def _aftermath(set_up: SetUp, trial: Trial) -> list[str]:
    aftermath = trial.fault.aftermath
    return [] if aftermath is None else await step("what failed came back", aftermath(set_up))


def late_s(holder: Holder, healed_s: float = 0.0) -> float:
    """Return how long the socket outlived its session, or the outage if that ended later."""
    assert holder.closed_s is not None and holder.ended_s is not None
    return max(0.0, holder.closed_s - max(holder.ended_s, healed_s))


def not_closed_in_time(ended: Sequence[Holder], healed_s: float) -> list[str]:
    """Return what is wrong with the sockets of sessions that were ended."""
    problems = []
    for holder in ended:
        if holder.closed_s is None:
            problems.append("a socket is open although its session ended")
        elif holder.close != (4401, End.SIGNED_OUT.value):
            problems.append(f"a socket was closed with {holder.close} at the end of its session")
        elif holder.asked_s is None or holder.closed_s < holder.asked_s:
            problems.append("a socket was closed before its session ended")
        elif late_s(holder, healed_s) > RECHECK_S + TOLERANCE_S:
            problems.append(f"a socket outlived its session by {late_s(holder, healed_s):.1f} s")
        elif late_s(holder) > PATIENCE_S + TOLERANCE_S:
            problems.append(f"a socket outlived its session by {late_s(holder):.1f} s, outage included")
    return problems


def closed_although_live(holders: Sequence[Holder]) -> list[str]:
    """Return what is wrong with the sockets of sessions that nobody ended."""
    return [f"a socket was closed with {each.close}" for each in holders if each.closed_s is not None]


def all_closed(holders: Sequence[Holder], end: End, began_s: float) -> list[str]:
    """Return what is wrong with the sockets after a fault that closes all of them.

    Args:
        began_s: When the fault began.
    """
    earliest_s, latest_s = 0.0, RECHECK_S + TOLERANCE_S
    if end is End.STORE_DOWN:
        # The patience begins at the next check.
        earliest_s, latest_s = SHORT_PATIENCE_S, SHORT_PATIENCE_S + latest_s
    problems = []
    for holder in holders:
        if holder.closed_s is None:
            problems.append("a socket is open")
        elif holder.close != (CODES[end], end.value):
            problems.append(f"a socket was closed with {holder.close}")
        elif not earliest_s <= holder.closed_s - began_s <= latest_s:
            problems.append(f"a socket was closed after {holder.closed_s - began_s:.1f} s")
    return problems
