"""Tests of cancelled calls: each takes effect completely or not at all, and affects no other call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from stormcellar.stores.base import Announcing, Store
from stormcellar.stores.conformance.cases import (
    ENDED,
    HOUR,
    NOW,
    SUPERSEDED,
    UNKNOWN,
    created,
    handles,
    living,
    loaded,
    new_record,
    new_user,
    new_verifier,
    rotated,
)
from stormcellar.stores.records import Absent, Credential, Delta, Record

CANCELLATIONS, COUNTED_STEPS = 40, 10


class CancelContract:
    """Tests of cancelled calls."""

    async def test_cancelled_calls_happen_whole_or_not_at_all(self, store: Store) -> None:
        """Calls cancelled at many points leave no partial state, and no other call gets their reply."""
        others = [await created(store, data={"mine": b"%d" % number}) for number in range(8)]
        for name in _CALLS:
            if name == "states" and not isinstance(store, Announcing):
                continue
            last_s = await _duration(await _Target.make(store, name), name)
            for step in range(CANCELLATIONS):
                target = await _Target.make(store, name)
                task = asyncio.create_task(_CALLS[name](target))
                await _let_run(step, last_s)
                task.cancel()
                answer, *found = await asyncio.gather(
                    task,
                    *(store.load(each.credential, now_ms=NOW) for each in others),
                    return_exceptions=True,
                )

                assert found == others, f"after a cancelled {name}"
                await target.check_whole(name, answer)
                await store.destroy(target.record.handle, now_ms=NOW)


@dataclass(frozen=True, slots=True)
class _Target:
    """The session of one call that is cancelled."""

    store: Store
    record: Record
    new: Credential
    user: str

    @classmethod
    async def make(cls, store: Store, name: str) -> _Target:
        record = new_record(data={"a": b"0", "b": b"0"})
        if name != "create":
            await store.create(record)
        return cls(store, record, Credential(record.handle, new_verifier()), new_user())

    async def check_whole(self, name: str, answer: object) -> None:
        """Fail if *answer* is an error, or the session is neither as before the call nor as after it."""
        was_cancelled = isinstance(answer, asyncio.CancelledError)
        assert was_cancelled or not isinstance(answer, BaseException), f"{name} raised {answer!r}"
        # Load the old verifier first: a rotation still in flight may take effect in between.
        old = await self.store.load(self.record.credential, now_ms=NOW)
        has_happened = await self._is_after(name, old)
        assert has_happened or old == (UNKNOWN if name == "create" else self.record), name
        assert was_cancelled or has_happened, f"{name} answered {answer!r} and did nothing"

    async def _is_after(self, name: str, old: Record | Absent) -> bool:
        if name == "create":
            return old == self.record
        if name == "apply":
            return isinstance(old, Record) and old.data == {"a": b"1", "b": b"1"}
        if name == "destroy":
            return old == ENDED
        if name != "rotate":
            return old == self.record
        if old != SUPERSEDED:
            return False
        new = await loaded(self.store, self.new)
        listed = handles(await self.store.of_user(self.user, now_ms=NOW))
        return (new.data, new.user, listed) == ({"b": b"1"}, self.user, [new.handle])


_BOTH = Delta(put={"a": b"1", "b": b"1"})

_CALLS: dict[str, Callable[[_Target], Coroutine[Any, Any, object]]] = {
    "create": lambda t: t.store.create(t.record),
    "load": lambda t: t.store.load(t.record.credential, now_ms=NOW),
    "apply": lambda t: t.store.apply(t.record.credential, _BOTH, now_ms=NOW, expires_ms=NOW + 2 * HOUR),
    "rotate": lambda t: rotated(
        t.store, t.record.credential, t.new.verifier, Delta(put={"b": b"1"}), user=t.user, keep=frozenset()
    ),
    "destroy": lambda t: t.store.destroy(t.record.handle, now_ms=NOW),
    "find": lambda t: t.store.find(t.record.handle, now_ms=NOW),
    "of_user": lambda t: t.store.of_user(t.user, now_ms=NOW),
    "states": lambda t: living(t.store, [t.record.credential, t.new]),
}


async def _duration(target: _Target, name: str) -> float:
    """Return how many seconds the call takes if it is not cancelled."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    await _CALLS[name](target)
    last_s = loop.time() - start
    await target.store.destroy(target.record.handle, now_ms=NOW)
    return last_s


async def _let_run(step: int, last_s: float) -> None:
    """Let other tasks run: for *step* iterations of the loop, then for a growing part of *last_s*."""
    if step < COUNTED_STEPS:
        for _ in range(step):
            await asyncio.sleep(0)
        return
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.2 * last_s * (step - COUNTED_STEPS) / (CANCELLATIONS - COUNTED_STEPS)
    # Iterations instead of a timer: the selector rounds a timer up to whole milliseconds, longer than most
    # calls.
    while loop.time() < end:  # noqa: ASYNC110
        await asyncio.sleep(0)
