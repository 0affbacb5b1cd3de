"""A schedule knows the earliest, lets any handle be moved or taken out, and never does much at once."""

from __future__ import annotations

import random

import pytest

from stormcellar.stores import Handle
from stormcellar.stores.memory.schedule import BUCKET_BITS, NEAR_MAX, SORTED_PER_CALL, Schedule

WIDTH = 1 << BUCKET_BITS


class Times(dict[Handle, int]):
    """The time of each handle, and how often it was asked for."""

    asked = 0

    def of(self, handle: Handle) -> int:
        """Return the time of *handle*."""
        self.asked += 1
        return self[handle]


@pytest.mark.parametrize("span", [1000, 30 * WIDTH], ids=["one bucket", "many buckets"])
def test_schedule_agrees_with_a_sorted_list(span: int) -> None:
    """Thousands of random puts, moves and removals keep the earliest first, as sorting would."""
    times, chance = Times(), random.Random(5)
    schedule = Schedule(times.of)
    for _ in range(5000):
        handle, at_ms = Handle(f"h{chance.randrange(60)}"), chance.randrange(-span // 2, span // 2)
        if handle not in times:
            times[handle] = at_ms
            schedule.put(handle, at_ms)
        elif chance.random() < 0.5:
            schedule.discard(handle, times.pop(handle))
        else:
            old_ms, times[handle] = times[handle], at_ms
            schedule.move(handle, old_ms, at_ms)
        until_ms = chance.randrange(-span // 2, span // 2)
        due = sorted((at, who) for who, at in times.items() if at <= until_ms)
        # Twice: no call puts more than 32 in order.
        schedule.first(3, until_ms=until_ms)
        assert schedule.first(3, until_ms=until_ms) == [who for _, who in due[:3]]
        assert len(schedule) == len(times)
        assert schedule.due_ms <= min(times.values(), default=schedule.due_ms)


@pytest.mark.parametrize("spread", [1, WIDTH - 1], ids=["one time", "one bucket"])
def test_crowd_comes_out_a_few_at_a_time(spread: int) -> None:
    """With many handles at one time, a call looks at few; none is early, and all are returned in the end."""
    times, chance = Times(), random.Random(6)
    schedule, count = Schedule(times.of), 3 * NEAR_MAX
    for number in range(count):
        handle = Handle(f"h{number}")
        times[handle] = 10 * WIDTH + chance.randrange(spread)
        schedule.put(handle, times[handle])

    for now_ms in range(10 * WIDTH, 11 * WIDTH, 64):
        before = times.asked
        for handle in schedule.first(8, until_ms=now_ms):
            assert times[handle] <= now_ms
            schedule.discard(handle, times.pop(handle))
        assert times.asked - before <= SORTED_PER_CALL
        assert len(schedule._near) <= NEAR_MAX
    while found := schedule.first(8, until_ms=11 * WIDTH):
        for handle in found:
            schedule.discard(handle, times.pop(handle))

    assert (times, len(schedule)) == ({}, 0)


def test_earlier_bucket_displaces_a_crowd() -> None:
    """While as many as are kept in order wait, one of an earlier bucket still comes first."""
    times = Times({Handle(f"h{number}"): 5 * WIDTH + number % WIDTH for number in range(2 * NEAR_MAX)})
    schedule = Schedule(times.of)
    for handle, at_ms in times.items():
        schedule.put(handle, at_ms)
    for _ in range(2 * NEAR_MAX // SORTED_PER_CALL):
        schedule.first(1)
    times[Handle("early")] = WIDTH

    schedule.put(Handle("early"), WIDTH)

    assert schedule.first(1) == ["early"]
    assert len(schedule) == len(times)


def test_nothing_due_is_known_at_once() -> None:
    """After a look that found nothing, `due_ms` tells until when there is no need for another."""
    times = Times({Handle("a"): 5 * WIDTH + 7, Handle("b"): 9 * WIDTH})
    schedule = Schedule(times.of)
    empty_ms = schedule.due_ms
    for handle, at_ms in times.items():
        schedule.put(handle, at_ms)

    before = schedule.first(1, until_ms=5 * WIDTH - 1), schedule.due_ms
    within = schedule.first(1, until_ms=5 * WIDTH + 6), schedule.due_ms

    assert empty_ms == float("inf")
    assert (before, within) == (([], 5 * WIDTH), ([], 5 * WIDTH + 7))
