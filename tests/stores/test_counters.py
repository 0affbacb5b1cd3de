"""The counting contract on every backend, the rules that it counts by, and the bound of the memory store."""

from __future__ import annotations

import pytest

from stormcellar.stores import Rule
from stormcellar.stores.conformance import CountersContract
from stormcellar.stores.conformance.cases import HOUR, MINUTE, NOW, ONE, ONLY_COUNTED, THREE, new_key, takes
from stormcellar.stores.memory.counters import RECLAIMED_PER_CALL, MemoryCounters
from tests.support.backends import Backend


class TestMemory(CountersContract):
    url = "memory:"


class TestBackends(CountersContract):
    @pytest.fixture(params=["redis8", "redis6", "valkey", "redis_cluster", "mongo", "mongo_rs"])
    def store_url(self, request: pytest.FixtureRequest) -> str:
        """The URL of each kind of server."""
        backend: Backend = request.getfixturevalue(request.param)
        return backend.url


@pytest.mark.parametrize(
    ("limit", "first", "longest", "keep"),
    [(0, 0, 0, 1), (-1, 0, 0, 1), (1, -1, 0, 1), (1, 2, 1, 3), (1, 1, 3, 2), (1, 1, 1, 10**12)],
)
def test_a_rule_that_contradicts_itself_is_refused(limit: int, first: int, longest: int, keep: int) -> None:
    """No free one, waits in the wrong order, or a tally forgotten before its wait is over: ValueError."""
    with pytest.raises(ValueError, match=r"limit|rule"):
        Rule(limit, first, longest, keep)


@pytest.mark.gen_test
async def test_memory_forgets_the_expired_as_it_goes() -> None:
    """Tallies whose time is over leave the memory by and by, without anyone asking for them."""
    counters = MemoryCounters()
    for _ in range(40):
        await counters.take(new_key(), THREE, now_ms=NOW)
        await counters.take(new_key(), ONE, now_ms=NOW)

    for _ in range(80 // RECLAIMED_PER_CALL):
        await counters.take("later", ONLY_COUNTED, now_ms=NOW + HOUR)

    assert len(counters) == 1


@pytest.mark.gen_test
async def test_memory_is_bounded() -> None:
    """Beyond the bound the tally that was changed least recently goes."""  # E11
    counters = MemoryCounters(max_tallies=3)
    for key in ("a", "b", "c", "a", "d"):
        await counters.take(key, THREE, now_ms=NOW)

    counts = {key: (await counters.peek(key, now_ms=NOW)).count for key in "abcd"}
    assert counts == {"a": 2, "b": 0, "c": 1, "d": 1}
    assert len(counters) == 3


@pytest.mark.gen_test
async def test_new_keys_do_not_push_out_a_delay() -> None:
    """A delay survives any number of new keys; only as many delays as there is room for end it."""  # E11
    counters = MemoryCounters(max_tallies=50)
    await takes(counters, "blocked", 3, THREE)
    for number in range(500):
        await counters.take(f"new-{number}", THREE, now_ms=NOW + MINUTE)
    survived = await counters.peek("blocked", now_ms=NOW + MINUTE)
    for number in range(49):
        await counters.take(f"delayed-{number}", ONE, now_ms=NOW + MINUTE)
    among_delays = await counters.peek("blocked", now_ms=NOW + MINUTE)

    await counters.take("one more", ONE, now_ms=NOW + MINUTE)

    assert (survived.count, among_delays.count) == (3, 3)
    assert (await counters.peek("blocked", now_ms=NOW + MINUTE)).count == 0
    assert len(counters) == 50
