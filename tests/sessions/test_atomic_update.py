"""`Session.modify`: atomic against every other request, and in step with what the handler sees."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stormcellar import SessionChanged
from stormcellar.sessions import atomic_update
from stormcellar.sessions.request_info import CookieChange
from stormcellar.sessions.session import state_of
from stormcellar.stores import Outcome
from stormcellar.stores.memory import MemoryStore
from tests.support.core import Core, Visitor, with_stored
from tests.support.fakes import Clock


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


def one_more(value: Any) -> int:
    """Count."""
    return int(value or 0) + 1


@pytest.mark.gen_test
async def test_an_absent_key_is_none(core: Core) -> None:
    """A counter begins with None, makes the record if there is none, and returns the new value."""
    visitor = Visitor(core)

    session = await visitor.request()
    counted = await session.modify("n", one_more)
    change = visitor.take(session)

    assert (counted, change, session["n"]) == (1, CookieChange.SET, 1)
    assert await visitor.reads() == {"n": 1}


@pytest.mark.gen_test
async def test_an_unreadable_value_is_none(core: Core) -> None:  # G4
    """What is stored but is not JSON counts as absent, and is replaced."""
    visitor = await with_stored(core, n=b"{")

    assert await (await visitor.request()).modify("n", one_more) == 1
    assert await visitor.reads() == {"n": 1}


@pytest.mark.gen_test
async def test_what_else_is_pending_is_saved_first(core: Core) -> None:
    """The change is given what the handler assigned before, and the rest of it is saved."""
    visitor = Visitor(core)
    await visitor.writes(n=1)

    session = await visitor.request()
    session.update(n=10, other=True)
    counted = await session.modify("n", one_more)

    assert counted == 11
    assert await visitor.reads() == {"n": 11, "other": True}


@pytest.mark.gen_test
async def test_the_handler_sees_the_new_value(core: Core) -> None:  # D3
    """What it had read or assigned before does not come back: nothing is pending after `modify`."""
    visitor = Visitor(core)
    await visitor.writes(log=["a"])

    session = await visitor.request()
    before = session["log"]
    session["n"] = 0
    await session.modify("log", lambda log: [*log, "b"])
    await session.modify("n", one_more)
    seen, delta = (list(session["log"]), session["n"]), state_of(session).data.pending()
    session["log"].append("c")
    await visitor.answer(session)

    assert (before, seen, delta) == (["a"], (["a", "b"], 1), None)
    assert await visitor.reads() == {"log": ["a", "b", "c"], "n": 1}


@pytest.mark.gen_test
async def test_another_request_in_between_is_counted(core: Core) -> None:  # D3
    """After a conflict the change is called again with what the other wrote, and undoes nothing else."""
    visitor = Visitor(core)
    await visitor.writes(n=1, cart=["apples"])
    session = await visitor.request()
    assert session["cart"] == ["apples"]
    given: list[Any] = []

    def one_more_noted(value: Any) -> int:
        given.append(value)
        return one_more(value)

    await visitor.twin().writes(n=5, cart=["pears"])
    counted = await session.modify("n", one_more_noted)
    await visitor.answer(session)

    assert (counted, given) == (6, [1, 5])
    assert await visitor.reads() == {"n": 6, "cart": ["pears"]}


@pytest.mark.gen_test
async def test_a_key_deleted_by_another_request_is_none(core: Core) -> None:  # D3
    """After a conflict with a deletion the change begins anew."""
    visitor = Visitor(core)
    await visitor.writes(n=7)
    session = await visitor.request()
    other = await visitor.twin().request()
    del other["n"]
    await other.commit()

    assert await session.modify("n", one_more) == 1


@pytest.mark.gen_test
async def test_a_change_that_raises_changes_nothing(core: Core) -> None:
    """The handler's own error comes through, nothing is written, and the next one has its turn."""
    visitor = Visitor(core)
    await visitor.writes(n="text")
    session = await visitor.request()

    with pytest.raises(ValueError, match="invalid literal"):
        await session.modify("n", one_more)
    with pytest.raises(ValueError, match="set is not a JSON type"):
        await session.modify("n", lambda _: {1})
    with pytest.raises(ValueError, match="session key"):
        await session.modify("not a key", one_more)

    assert await visitor.reads() == {"n": "text"}
    assert await session.modify("n", lambda _: 1) == 1


@pytest.mark.gen_test
async def test_a_session_that_ended_meanwhile_is_a_conflict(core: Core) -> None:  # D1
    """After a sign-out elsewhere the counter says so, before or after it met a conflict."""
    visitor = Visitor(core)
    await visitor.writes(n=1)
    at_once, after_conflict = await visitor.request(), await visitor.request()
    await visitor.twin().writes(n=2)
    gate = core.store.gate("load")

    counting = asyncio.create_task(after_conflict.modify("n", one_more))
    await gate.reached()
    handle = state_of(after_conflict).sid.handle  # type: ignore[union-attr]
    await core.manager.store.destroy(handle, now_ms=core.manager.now_ms())
    gate.open()

    with pytest.raises(SessionChanged):
        await counting
    with pytest.raises(SessionChanged):
        await at_once.modify("n", one_more)


class Contended(MemoryStore):
    """A store in which somebody else is always faster with a conditional write."""

    async def apply(self, credential: Any, delta: Any, **times: Any) -> Outcome:
        """Refuse what expects anything."""
        return Outcome.CONFLICT if delta.expect else await super().apply(credential, delta, **times)


@pytest.mark.gen_test
async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that always loses gives up with a conflict instead of trying for ever."""
    monkeypatch.setattr(atomic_update, "TIMEOUT_S", 0.02)
    core = Core(Contended())
    visitor = Visitor(core)
    await visitor.writes(n=1)
    session = await visitor.request()

    with pytest.raises(SessionChanged):
        await session.modify("n", one_more)

    assert core.store.calls["apply"] > 1


@pytest.mark.gen_test
async def test_waiting_for_a_turn_ends_too(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind one that hangs in the store the next gives up; it has then not been tried."""
    monkeypatch.setattr(atomic_update, "TIMEOUT_S", 0.02)
    visitor = Visitor(core)
    await visitor.writes(n=1)
    first, second = await visitor.request(), await visitor.request()
    gate = core.store.gate("apply")

    hanging = asyncio.create_task(first.modify("n", one_more))
    await gate.reached()
    with pytest.raises(SessionChanged):
        await second.modify("n", one_more)
    tried = core.store.calls["apply"]
    gate.open()

    assert (tried, await hanging) == (1, 2)
    assert await second.modify("n", one_more) == 3


@pytest.mark.gen_test
async def test_one_process_does_not_fight_itself() -> None:
    """Requests of one session take turns, so that each needs at most one look at what the last one wrote."""
    core = Core(clock=Clock())
    visitor = Visitor(core)
    await visitor.writes(n=0)
    sessions = [await visitor.request() for _ in range(20)]
    core.store.calls.clear()

    counted = await asyncio.gather(*(session.modify("n", one_more) for session in sessions))

    assert sorted(counted) == list(range(1, 21))
    assert core.store.calls == {"apply": 39, "load": 19}


@pytest.mark.gen_test
async def test_sessions_do_not_wait_for_each_other(core: Core) -> None:
    """While one session's counter hangs another one counts."""
    slow, quick = Visitor(core), Visitor(core)
    await slow.writes(n=1)
    await quick.writes(n=1)
    gate = core.store.gate("apply")

    hanging = asyncio.create_task((await slow.request()).modify("n", one_more))
    await gate.reached()
    counted = await (await quick.request()).modify("n", one_more)
    gate.open()

    assert (counted, await hanging) == (2, 2)
