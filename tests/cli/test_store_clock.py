"""The clock of this machine and those of the servers of the store: measured, shown, and warned of."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from stormcellar.runtime.store_clock import BOUND_S, ahead_s, problem_with
from stormcellar.stores import StoreOptions, StoreUnavailable, open_store
from stormcellar.stores.memory import MemoryStore
from stormcellar.stores.redis import RedisStore
from tests.cli.world import told_by
from tests.stores.redis.samples import redis_client
from tests.support.backends import Backend

KINDS = ["redis8", "redis6", "valkey", "redis_cluster", "mongo", "mongo_rs"]


class Clocks(MemoryStore):
    """A store whose servers have clocks of their own, behind a network that takes time.

    Args:
        ahead: By how many seconds each server is ahead of us.
        requests: How long each takes to the server and back, in seconds.
    """

    def __init__(self, ahead: list[float], requests: list[tuple[float, float]]) -> None:
        super().__init__()
        self.now_s = 1_000_000.0
        self._ahead = ahead
        self._requests = iter(requests)

    async def server_times(self) -> AsyncIterator[int]:
        """Move our clock as the requests do."""
        for ahead in self._ahead:
            there_s, back_s = next(self._requests)
            self.now_s += there_s
            told_ms = round(1000 * (self.now_s + ahead))
            self.now_s += back_s
            yield told_ms


@pytest.mark.parametrize("ahead", [0.0, 75.0, -75.0])
@pytest.mark.gen_test
async def test_half_of_the_round_trip_is_taken_off(ahead: float) -> None:
    """A slow network moves no clock."""
    store = Clocks([ahead], [(1.0, 1.0)] * 3)

    assert await ahead_s(store, now=lambda: store.now_s) == pytest.approx(ahead, abs=0.002)


@pytest.mark.gen_test
async def test_fastest_request_counts() -> None:
    """The first one connects, and most of its time may be on one way."""

    store = Clocks([1.0], [(4.0, 0.0), (0.001, 0.001), (0.0, 4.0)])

    assert await ahead_s(store, now=lambda: store.now_s) == pytest.approx(1.0, abs=0.002)


@pytest.mark.gen_test
async def test_server_that_differs_most_is_told() -> None:
    """One node of a cluster with a wrong clock is enough."""
    store = Clocks([1.0, -80.0, 3.0], [(0.001, 0.001)] * 9)

    assert await ahead_s(store, now=lambda: store.now_s) == pytest.approx(-80.0, abs=0.002)


@pytest.mark.gen_test
async def test_store_without_a_clock_has_no_difference() -> None:
    """Memory has none, and one that fails to tell the time is not worse than that."""

    class Silent(MemoryStore):
        async def server_times(self) -> AsyncIterator[int]:
            raise StoreUnavailable("clock")
            yield 0

    assert await ahead_s(MemoryStore()) is None
    assert await ahead_s(Silent()) is None


@pytest.mark.parametrize("moved", [0.0, 75.0, -75.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.gen_test
async def test_moved_clock_of_this_machine_is_measured(
    request: pytest.FixtureRequest, kind: str, moved: float
) -> None:
    """By the time of each real server."""
    backend: Backend = request.getfixturevalue(kind)
    store = open_store(backend.url, prefix="clock", timeout_s=10)
    try:
        ahead = await ahead_s(store, now=lambda: time.time() + moved)
        times = [told_ms async for told_ms in store.server_times()]
    finally:
        await store.aclose()

    assert ahead == pytest.approx(-moved, abs=0.5)
    assert len(times) == 1


@pytest.mark.gen_test
async def test_account_that_may_not_run_info_has_no_difference(redis8: Backend) -> None:
    """INFO is recommended and not needed, so nothing fails without it."""
    with redis_client(redis8.port) as admin:
        give(admin, "timeless", "+@all", "-info")
    store = RedisStore.from_url(redis8.url.replace("//", "//timeless:pw@"), StoreOptions("clock"))

    assert await ahead_s(store) is None
    await store.aclose()


def give(admin: redis.Redis, name: str, *rules: str) -> None:
    """Make an account with the password `pw`, and with *rules*."""
    command: Any = admin.execute_command
    command("ACL", "SETUSER", name, "reset", "on", ">pw", "~*", "&*", *rules)


@pytest.mark.parametrize(
    ("ahead", "is_wrong"), [(BOUND_S, False), (-BOUND_S, False), (5.1, True), (-5.1, True)]
)
def test_bound_is_what_the_code_bears(ahead: float, is_wrong: bool) -> None:
    """Up to it, and either way."""
    assert (problem_with(ahead) is not None) is is_wrong


@pytest.mark.usefixtures("no_settings", "no_listening")
@pytest.mark.parametrize(
    ("ahead", "status", "shown"),
    [
        (0.004, 0, "ok       store: memory answers; its clock is 0.0"),
        (75.0, 1, "problem  store: its clock is 7"),
        (-75.0, 1, "problem  store: its clock is 7"),
    ],
)
def test_doctor_shows_the_difference_and_the_start_warns(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    ahead: float,
    status: int,
    shown: str,
) -> None:
    """The server starts all the same, because somebody may be setting the clock."""

    async def server_times(self: MemoryStore) -> AsyncIterator[int]:
        yield round(1000 * (time.time() + ahead))

    monkeypatch.setattr(MemoryStore, "server_times", server_times)
    arguments = ("--data-dir", str(tmp_path), "--port=0", "--demo")

    ended, report = told_by(capsys, "doctor", *arguments)
    begun, _ = told_by(capsys, "serve", *arguments)
    warnings = [each for each in caplog.messages if "clock" in each]

    assert (ended, begun) == (status, 0)
    assert shown in report
    assert len(warnings) == status
    for line in [*warnings, *(report.splitlines() if status else [])]:
        if "clock" in line:
            assert f"s {'ahead of' if ahead > 0 else 'behind'} this machine's; set all clocks" in line
