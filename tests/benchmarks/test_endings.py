"""The ways to end a session in the benchmark of live sockets: what counts as ended, as lost and as wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from benchmarks.sockets import endings
from benchmarks.sockets.endings import ONE_BY_ONE
from benchmarks.sockets.servers import new_key, running_apps
from benchmarks.sockets.site import Pace, Site

PACE = Pace(sockets=6, ends=3, per_s=1000, patience_s=5)


@asynccontextmanager
async def site_of(*options: str) -> AsyncIterator[Site]:
    """Run one process with the memory store."""
    with running_apps("memory", "memory", 1, *options, key=new_key()) as [app]:
        async with AsyncExitStack() as stack:
            yield await Site.connect(stack, [app.port])


@pytest.mark.gen_test(timeout=60)
async def test_each_way_ends_its_own_sessions_alone() -> None:
    """None is lost, and no other socket is closed."""
    async with site_of() as site:
        for measure in (*ONE_BY_ONE.values(), endings.everywhere):
            outcome = await measure(site, PACE)

            assert (outcome.lost, outcome.wrong) == (0, 0)
            assert len(outcome.from_request_s) == outcome.ended > 0
            assert all(time_s > 0 for time_s in outcome.from_request_s)


@pytest.mark.gen_test(timeout=60)
async def test_socket_that_stays_open_is_lost() -> None:
    """As where nothing is announced and the next check is far away."""
    async with site_of("--deaf", "--recheck-s=900") as site:
        outcome = await ONE_BY_ONE["logout"](site, Pace(sockets=6, ends=3, per_s=1000, patience_s=0.5))

        assert (outcome.ended, outcome.lost, outcome.from_answer_s) == (3, 3, [])


@pytest.mark.gen_test(timeout=60)
async def test_closed_socket_of_another_session_is_wrong() -> None:
    """Whoever closed it."""
    async with site_of() as site:
        await site.fill(6)
        await site.requests[0].get("/logout", site.open[-1].cookie)
        outcome = await ONE_BY_ONE["logout"](site, Pace(sockets=6, ends=3, per_s=1000, patience_s=5))

        assert (outcome.lost, outcome.wrong) == (0, 1)


@pytest.mark.gen_test(timeout=60)
async def test_expiry_is_measured_from_its_instant() -> None:
    """Not from the request that made the session."""
    async with site_of() as site:
        outcome = await endings.expiry(site, PACE, query="&within_s=2")

        assert (outcome.ended, outcome.lost) == (3, 0)
        assert all(-0.05 < time_s < 1.5 for time_s in outcome.from_answer_s)
