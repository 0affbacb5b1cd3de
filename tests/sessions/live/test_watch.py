"""`SessionWatch`: each holder of a session is told when it is over, once, and nobody else is."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest

from stormcellar.sessions.live.check_queue import SLICE
from stormcellar.sessions.live.watch import Rechecks
from stormcellar.sessions.live.watched import End
from stormcellar.stores import Credential, StoreUnavailable
from stormcellar.stores.conformance.cases import (
    MINUTE,
    NOTHING,
    created_many,
    new_verifier,
    rotated,
)
from stormcellar.stores.memory import MemoryStore
from tests.sessions.live.watching import OFTEN, Deaf, end_of, followed, live_record, now_ms
from tests.stores.test_minimal_store import MinimalStore


@pytest.mark.gen_test
async def test_each_holder_is_told_of_a_destroy(watching: Any) -> None:
    """By push: every holder of this session, and no other."""
    it = watching()
    record, other = await it.new(), await it.new()
    held = [it.watch.hold(record) for _ in range(3)]
    stays = it.watch.hold(other)
    await it.settle()

    await it.store.destroy(record.handle, now_ms=now_ms())

    assert [await end_of(each) for each in held] == [End.SIGNED_OUT] * 3
    assert (stays.end, len(it.watch)) == (None, 1)


@pytest.mark.gen_test
async def test_end_before_the_hold_is_found(watching: Any) -> None:
    """A session that ended between its load and the hold is over at once: no announcement comes again."""
    it = watching()
    record = await it.new()
    await it.store.destroy(record.handle, now_ms=now_ms())

    assert await end_of(it.watch.hold(record)) is End.SIGNED_OUT


@pytest.mark.gen_test
async def test_another_sign_in_replaces_it(watching: Any) -> None:
    """Somebody proved who they are under the same handle: the browser has another ID."""
    it = watching()
    record = await it.new()
    held = it.watch.hold(record)
    await it.settle()

    proved = {"user": "ada", "auth_ms": record.auth_ms + 1}
    await rotated(it.store, record.credential, new_verifier(), now_ms=now_ms(), **proved)

    assert await end_of(held) is End.REPLACED


@pytest.mark.gen_test
async def test_renewed_id_is_followed(watching: Any) -> None:
    """A renewal does not end it, and after it the end of the session is found under the new ID."""
    it = watching(rechecks=OFTEN)
    record, new = await it.new(), new_verifier()
    held = it.watch.hold(record)
    same = {"user": record.user, "auth_ms": record.auth_ms}
    await rotated(it.store, record.credential, new, now_ms=now_ms(), grace_ms=1, **same)
    await followed(held, new)

    assert (held.end, held.credential) == (None, Credential(record.handle, new))

    await it.store.destroy(record.handle, now_ms=now_ms())
    assert await end_of(held) is End.SIGNED_OUT


@pytest.mark.gen_test
async def test_new_expiry_is_told(watching: Any) -> None:
    """Once, and not by a check that finds the session as it was."""
    it = watching(rechecks=OFTEN)
    record = await it.new()
    held = it.watch.hold(record)
    expiries: list[int] = []
    held.on_new_expiry = lambda: expiries.append(held.record.expires_ms)
    await it.settle(2)
    before = list(expiries)
    later_ms = record.expires_ms + MINUTE
    await it.store.apply(record.credential, NOTHING, now_ms=now_ms(), expires_ms=later_ms)
    await it.settle(2)

    assert (before, expiries) == ([], [later_ms])


@pytest.mark.gen_test
async def test_changed_account_ends_it(watching: Any) -> None:
    """A disabled account and a new password are found by the regular check: no store announces them."""
    it = watching(rechecks=OFTEN, users={"ada": 0, "bob": 0})
    first, second = it.watch.hold(await it.new()), it.watch.hold(replace(await it.new(user="bob")))
    await it.settle()

    del it.users["ada"]
    it.users["bob"] = now_ms() + 1000

    assert [await end_of(each) for each in (first, second)] == [End.ACCOUNT] * 2


@pytest.mark.gen_test
async def test_lost_announcement_is_made_up_by_the_regular_check(watching: Any) -> None:
    """Without any push a session is found to be over within the time of the check."""
    it = watching(Deaf(), OFTEN)
    record = await it.new()
    held = it.watch.hold(record)
    await it.settle()
    await it.store.destroy(record.handle, now_ms=now_ms())

    assert await end_of(held) is End.SIGNED_OUT


@pytest.mark.gen_test
async def test_gap_in_the_announcements_has_all_checked(watching: Any) -> None:
    """When the store says that it may have missed something, everything is checked at once."""
    it = watching(Deaf())
    record = await it.new()
    held = it.watch.hold(record)
    await it.settle()
    await it.store.destroy(record.handle, now_ms=now_ms())
    await asyncio.sleep(0.02)
    before = held.end

    it.store.says.put_nowait(None)

    assert (before, await end_of(held)) == (None, End.SIGNED_OUT)


@pytest.mark.gen_test
async def test_store_without_push_is_polled(watching: Any) -> None:
    """A store that only loads is asked by `load`."""
    it = watching(MinimalStore(MemoryStore()), OFTEN)
    record = await it.new()
    held = it.watch.hold(record)
    await it.store.destroy(record.handle, now_ms=now_ms())

    assert await end_of(held) is End.SIGNED_OUT


@pytest.mark.gen_test
async def test_renewal_on_a_store_without_push(watching: Any) -> None:
    """A renewed ID is followed there, too, after the grace of the old one."""
    store = MemoryStore()
    it = watching(MinimalStore(store), OFTEN)
    record, new = await it.new(), new_verifier()
    held = it.watch.hold(record)
    same = {"user": record.user, "auth_ms": record.auth_ms}
    await rotated(store, record.credential, new, now_ms=now_ms(), grace_ms=1, **same)
    await followed(held, new)

    assert held.end is None


@pytest.mark.gen_test
async def test_holder_that_lets_go_during_a_check_is_told_nothing(watching: Any) -> None:
    """Not that its session is over, and not later that the store is down."""
    it = watching(rechecks=Rechecks(every_s=3600.0, patience_s=0.05))
    held = it.watch.hold(await it.new())
    gate = it.store.gate("states")
    it.store.fail["states"] = StoreUnavailable("states")
    await gate.reached()
    it.watch.release(held)
    gate.open()
    await asyncio.sleep(0.7)

    assert held.end is None


@pytest.mark.gen_test
async def test_holder_that_lets_go_of_a_silent_store_is_told_nothing(watching: Any) -> None:
    """The patience with the store is no concern of one that has let go."""
    it = watching(Deaf(), rechecks=Rechecks(every_s=3600.0, patience_s=0.5))
    gate = it.store.gate("states")
    left, stays = it.watch.hold(await it.new()), it.watch.hold(await it.new())
    await gate.reached()
    it.watch.release(left)

    assert await end_of(stays) is End.STORE_DOWN
    assert left.end is None
    gate.open()


@pytest.mark.gen_test
async def test_many_ends_are_asked_for_together(watching: Any) -> None:
    """A thousand sessions that end at once need a few calls of the store, not a thousand."""
    it = watching()
    records = [live_record() for _ in range(1000)]
    await created_many(it.store, records)
    held = [it.watch.hold(record) for record in records]
    await it.settle(5)
    before = it.store.calls["states"]

    for record in records:
        await it.store.destroy(record.handle, now_ms=now_ms())
    ends = {await end_of(each) for each in held}

    assert ends == {End.SIGNED_OUT}
    assert it.store.calls["states"] - before <= 3 * len(records) / SLICE


@pytest.mark.gen_test
async def test_one_session_is_asked_for_once(watching: Any) -> None:
    """A worker that finds nothing left to check does not ask the store."""
    it = watching()
    record = await it.new()
    held = it.watch.hold(record)
    await it.settle()
    it.store.calls.clear()
    it.watch.check(held)
    await it.settle()

    assert it.store.calls["states"] == 1


@pytest.mark.gen_test
async def test_released_holder_is_told_nothing(watching: Any) -> None:
    """One that has let go is not called, leaves nothing behind, and may let go twice."""
    it = watching()
    record = await it.new()
    left, stays = it.watch.hold(record), it.watch.hold(record)
    await it.settle()
    timer = left.timer
    it.watch.release(left)
    it.watch.release(left)

    await it.store.destroy(record.handle, now_ms=now_ms())

    assert await end_of(stays) is End.SIGNED_OUT
    assert (left.end, len(it.watch), any(it.watch._held.turns)) == (None, 0, False)
    assert timer is not None and timer.cancelled()  # it would keep the socket in memory until the expiry


@pytest.mark.gen_test
async def test_callback_that_fails_keeps_nobody_open(watching: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Every callback is called once; one that raises is logged, and one that comes late is called at once."""
    it = watching()
    record = await it.new()
    held, other = it.watch.hold(record), it.watch.hold(record)
    told: list[End] = []
    held.on_end(lambda end: 1 / 0)
    held.on_end(told.append)
    other.on_end(told.append)

    await it.store.destroy(record.handle, now_ms=now_ms())
    await end_of(held)
    await end_of(other)
    held.on_end(told.append)

    assert told == [End.SIGNED_OUT] * 3
    assert [each.getMessage() for each in caplog.records] == [
        f"a callback failed at the end of session {record.handle}"
    ]


@pytest.mark.gen_test
async def test_closing_tells_everybody(watching: Any) -> None:
    """At the end of the server every holder is told so, and later ones at once."""
    it = watching()
    record = await it.new()
    held = it.watch.hold(record)

    await it.watch.aclose()

    assert (held.end, it.watch.hold(record).end) == (End.STOPPED, End.STOPPED)


@pytest.mark.parametrize(
    "times", [{"every_s": 0}, {"every_s": -1.0}, {"patience_s": 0.0}, {"every_s": math.nan}]
)
def test_times_must_be_positive(times: dict[str, float]) -> None:
    """Zero, a negative time and no number are refused."""
    with pytest.raises(ValueError, match="must be positive"):
        Rechecks(**times)
