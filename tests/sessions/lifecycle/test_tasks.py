"""One request, several tasks: what changes while a verb is at work is neither lost nor smuggled in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import Session, state_of
from tests.support.core import Core, Visitor


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


async def started(work: Awaitable[Any]) -> asyncio.Task[Any]:
    """Start *work* and let it come to the first point where it waits."""

    async def run() -> Any:
        return await work

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    return task


def finished(core: Core, session: Session) -> Awaitable[None]:
    """Do as a handler's `finish()` does: freeze what is pending, seal, and save it."""
    state = state_of(session)
    frozen = state.data.pending()
    state.seal("the response is finished")
    assert frozen is not None
    return core.manager.lifecycle.commit(state, frozen)


# --- changes during a commit ---


@pytest.mark.gen_test
async def test_two_commits_at_once_write_once(core: Core) -> None:
    """The second waits for the first and finds nothing left to do, also when there is no record yet."""
    visitor = Visitor(core)
    session = await visitor.request()
    session["a"] = 1

    await asyncio.gather(session.commit(), session.commit())
    session["a"] = 2
    await asyncio.gather(session.commit(), session.commit())

    assert core.store.calls == {"create": 1, "apply": 1}


@pytest.mark.gen_test
@pytest.mark.parametrize("verb", ["create", "apply", "rotate"])
async def test_what_changes_during_a_write_is_still_pending(core: Core, verb: str) -> None:  # D3
    """What is assigned, changed inside or deleted while the store is at work goes with the next commit."""
    visitor = Visitor(core)
    if verb != "create":
        await visitor.writes(first=0)
    session = await visitor.request()
    session.update(assigned=1, nested=[1], deleted=1)
    gate = core.store.gate(verb)

    writing = await started(session.renew() if verb == "rotate" else session.commit())
    await gate.reached()
    session["assigned"] = 2
    session["nested"].append(2)
    del session["deleted"]
    session["new"] = True
    gate.open()
    await writing
    seen = dict(session)
    await visitor.answer(session)

    expected = {"assigned": 2, "nested": [1, 2], "new": True} | ({"first": 0} if verb != "create" else {})
    assert seen == expected
    assert await visitor.reads() == expected


@pytest.mark.gen_test
async def test_a_key_assigned_while_its_deletion_is_written_stays(core: Core) -> None:  # D3
    """A key that a commit is deleting and the handler assigns again is there after the next commit."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    session = await visitor.request()
    del session["a"]
    gate = core.store.gate("apply")

    writing = await started(session.commit())
    await gate.reached()
    session["a"] = 1
    gate.open()
    await writing
    await visitor.answer(session)

    assert await visitor.reads() == {"a": 1}


@pytest.mark.gen_test
async def test_a_key_deleted_and_written_by_another_stays_theirs(core: Core) -> None:  # D3
    """A deletion is done once: what another request writes under that key later is not deleted again."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    session = await visitor.request()
    del session["a"]
    await session.commit()

    await visitor.twin().writes(a="theirs")
    session["b"] = 2
    await session.commit()

    assert await visitor.reads() == {"a": "theirs", "b": 2}


# --- objects held across a verb ---


@pytest.mark.gen_test
@pytest.mark.parametrize("verb", ["commit", "renew", "login", "login again"])
async def test_objects_stay_live_across_a_verb(core: Core, verb: str) -> None:
    """A list that the handler holds is still the session's after any verb that keeps it."""
    visitor = Visitor(core)
    if verb == "login again":
        await visitor.signs_in("ada")
    await visitor.writes(cart=["apples"])

    session = await visitor.request()
    cart = session["cart"]
    if verb.startswith("login"):
        await session.login("ada", keep={"cart"})
    else:
        session["other"] = 1
        await (session.commit() if verb == "commit" else session.renew())
    cart.append("pears")
    await visitor.answer(session)

    assert session["cart"] is cart
    assert (await visitor.reads())["cart"] == ["apples", "pears"]


@pytest.mark.gen_test
async def test_objects_stay_live_while_signing_in(core: Core) -> None:
    """What is kept and changed while the store binds the user is saved with the next commit."""
    visitor = Visitor(core)
    await visitor.writes(cart=["apples"], seen=True, role="x")
    session = await visitor.request()
    gate = core.store.gate("rotate")

    signing_in = await started(session.login("ada", keep={"cart", "seen"}))
    await gate.reached()
    session["cart"].append("pears")
    del session["seen"]
    session["role"] = "admin"
    gate.open()
    await signing_in
    await visitor.answer(session)

    assert await visitor.reads() == {"cart": ["apples", "pears"]}


# --- the handler finishes while a verb is at work ---


@pytest.mark.gen_test
async def test_a_sign_in_at_work_filters_what_the_response_saves(core: Core) -> None:  # C3
    """What was pending when the handler finished passes the allowlist of the sign-in still at work."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    session = await visitor.request()
    session.update(cart=["apples"], role="admin")
    gate = core.store.gate("rotate")

    signing_in = await started(session.login("ada", keep={"cart"}))
    await gate.reached()
    busy = state_of(session).is_busy
    saving = await started(finished(core, session))
    gate.open()
    await asyncio.gather(signing_in, saving)
    visitor.take(session)

    assert (busy, state_of(session).is_busy) == (True, False)
    assert ((await visitor.request()).user, await visitor.reads()) == ("ada", {"cart": ["apples"]})
    assert core.store.calls["apply"] == 0


@pytest.mark.gen_test
async def test_a_sign_out_at_work_leaves_nothing_to_save(core: Core) -> None:  # C5, D1
    """What was pending when the handler finished does not become a new session after the sign-out."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    session = await visitor.request()
    session["late"] = 1
    gate = core.store.gate("destroy")

    signing_out = await started(session.logout())
    await gate.reached()
    saving = await started(finished(core, session))
    gate.open()
    await asyncio.gather(signing_out, saving)

    assert (await core.everything(), visitor.take(session)) == ([], CookieChange.CLEAR)


@pytest.mark.gen_test
@pytest.mark.parametrize("verb", ["create", "apply"])
async def test_a_commit_at_work_is_not_repeated(core: Core, verb: str) -> None:
    """What a commit is writing while the handler finishes is written once; what came later is saved too."""
    visitor = Visitor(core)
    if verb == "apply":
        await visitor.writes(gone=0)
    session = await visitor.request()
    session["a"] = 1
    session.pop("gone", None)
    first, second = core.store.gate(verb), core.store.gate("apply")

    committing = await started(session.commit())
    await first.reached()
    session["b"] = 2
    saving = await started(finished(core, session))
    first.open()
    await committing
    visitor.take(session)
    await second.reached()
    await visitor.twin().writes(a="theirs", gone="theirs")
    second.open()
    await saving

    assert await visitor.reads() == {"a": "theirs", "gone": "theirs", "b": 2}


@pytest.mark.gen_test
async def test_a_change_after_the_finish_is_not_saved(core: Core) -> None:
    """What is frozen is saved as it was, whatever happens to the objects before the store is asked."""
    visitor = Visitor(core)
    session = await visitor.request()
    session["cart"] = ["apples"]

    saving = finished(core, session)
    session["cart"].append("pears")
    await saving
    visitor.take(session)

    assert await visitor.reads() == {"cart": ["apples"]}


# --- verbs at once ---


@pytest.mark.gen_test
async def test_two_sign_ins_of_one_request_are_one_session(core: Core) -> None:  # D5
    """They happen one after the other; the last one is who is signed in, and one record is left."""
    visitor = Visitor(core)
    session = await visitor.request()

    await asyncio.gather(session.login("ada"), session.login("bob"))
    visitor.take(session)
    (record,) = await core.everything()

    assert (record.user, (await visitor.request()).user) == ("bob", "bob")


@pytest.mark.gen_test
async def test_a_commit_that_waited_for_a_sign_out_does_nothing(core: Core) -> None:  # C5, D1
    """Whatever was pending is gone with the session."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    session = await visitor.request()
    session["b"] = 2

    await asyncio.gather(session.logout(), session.commit())

    assert (await core.everything(), state_of(session).presence) == ([], Presence.SIGNED_OUT)


@pytest.mark.gen_test
async def test_counters_of_one_request_all_count(core: Core) -> None:
    """Several `modify` at once lose none, also when the first of them makes the record."""
    visitor = Visitor(core)
    session = await visitor.request()

    counted = await asyncio.gather(*(session.modify("n", lambda n: (n or 0) + 1) for _ in range(10)))
    visitor.take(session)

    assert (sorted(counted), await visitor.reads()) == (list(range(1, 11)), {"n": 10})


@pytest.mark.parametrize("verb", ["login", "renew"])
@pytest.mark.gen_test
async def test_a_handler_that_gives_up_on_a_new_id_still_gets_it(core: Core, verb: str) -> None:
    """A rotation that may have happened runs to its end, and the response waits for its cookie."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    session = await visitor.request()
    gate = core.store.gate("rotate")
    giving_up = await started(getattr(session, verb)(*["alice"] * (verb == "login")))
    await gate.reached()

    giving_up.cancel()
    await asyncio.wait([giving_up])
    busy = state_of(session).is_busy
    gate.open()
    async with state_of(session).lock:
        pass

    assert (giving_up.cancelled(), busy, state_of(session).cookie) == (True, True, CookieChange.SET)
    assert (await core.stored(state_of(session).sid)).user == session.user
