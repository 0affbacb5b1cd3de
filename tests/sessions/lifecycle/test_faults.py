"""A store that fails at any step leaves the cookie, and what is pending, as they must be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from stormcellar import Lifetime
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import Session, state_of
from stormcellar.stores import StoreFull, StoreUnavailable
from tests.support.core import SAFE, AccountTimes, Core, Visitor

Verb = Callable[[Session], Awaitable[object]]

VERBS: list[tuple[str, bool, Verb]] = [
    ("create", False, lambda session: session.commit()),
    ("create", False, lambda session: session.login("ada", keep={"x"})),
    ("create", False, lambda session: session.modify("n", lambda _: 1)),
    ("apply", True, lambda session: session.commit()),
    ("apply", True, lambda session: session.modify("n", lambda _: 1)),
    ("rotate", True, lambda session: session.login("ada", keep={"x"})),
    ("rotate", True, lambda session: session.renew()),
    ("destroy", True, lambda session: session.logout()),
]


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


@pytest.mark.gen_test
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "has_session", "verb"), VERBS)
async def test_a_store_that_fails_leaves_the_cookie(
    core: Core, step: str, has_session: bool, verb: Verb, when: str
) -> None:  # D12, G13
    """Without an answer, whether or not it was done, the browser keeps what it has; nobody is signed in."""
    visitor = Visitor(core)
    if has_session:
        await visitor.writes(a=1)
    (core.store.fail if when == "before" else core.store.fail_after)[step] = StoreUnavailable(step)

    session = await visitor.request()
    presence = state_of(session).presence
    session["x"] = 1
    with pytest.raises(StoreUnavailable):
        await verb(session)

    assert state_of(session).cookie is CookieChange.KEEP
    assert (state_of(session).presence, session.user) == (presence, None)
    assert session["x"] == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("wait_s", [0.0, 60.0], ids=["at once", "later"])
async def test_a_sign_out_without_confirmation_is_repeated(core: Core, wait_s: float) -> None:
    """The store did it, but could not confirm it: the next sign-out succeeds only when the store confirms."""
    visitor = Visitor(core)
    await visitor.signs_in()
    core.store.fail_after["destroy"] = StoreUnavailable("not confirmed")

    for _ in range(2):
        session = await visitor.request()
        with pytest.raises(StoreUnavailable):
            await session.logout()
        core.clock.advance(wait_s)
    core.store.fail_after.clear()
    session = await visitor.request()
    await session.logout()

    assert core.store.calls["destroy"] == 3


@pytest.mark.gen_test
@pytest.mark.parametrize(("step", "has_session", "verb"), VERBS)
async def test_what_failed_can_be_tried_again(core: Core, step: str, has_session: bool, verb: Verb) -> None:
    """What was pending still is: the same verb succeeds in the same request once the store answers."""
    visitor = Visitor(core)
    if has_session:
        await visitor.writes(a=1)
    core.store.fail[step] = StoreFull(step) if step != "destroy" else StoreUnavailable(step)

    session = await visitor.request()
    session["x"] = 1
    with pytest.raises(StoreUnavailable):
        await verb(session)
    core.store.fail.clear()
    await verb(session)
    visitor.take(session)

    if step == "destroy":
        assert (await core.everything(), visitor.sid) == ([], None)
    else:
        assert (await visitor.reads())["x"] == 1


@pytest.mark.gen_test
async def test_a_load_that_fails_says_nothing_about_the_session(core: Core) -> None:  # G13
    """Loading raises, so that no request takes an outage for a sign-out."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    core.store.fail["load"] = StoreUnavailable("load")

    with pytest.raises(StoreUnavailable):
        await visitor.request()
    core.store.fail.clear()

    assert (await visitor.request()).user == "ada"


@pytest.mark.gen_test
@pytest.mark.parametrize("step", ["of_user", "destroy"])
async def test_a_bound_that_cannot_be_kept_leaves_the_new_cookie(step: str) -> None:  # C12
    """If the store fails after the ID has changed, the browser must be given it: no other one is live."""
    core = Core(lifetime=Lifetime(max_per_user=1))
    visitor = Visitor(core)
    await Visitor(core).signs_in("ada")
    await visitor.writes(a=1)
    core.clock.advance(1)
    core.store.fail[step] = StoreUnavailable(step)

    session = await visitor.request()
    with pytest.raises(StoreUnavailable):
        await session.login("ada", keep={"a"})
    core.store.fail.clear()

    assert visitor.take(session) is CookieChange.SET
    assert ((await visitor.request()).user, await visitor.reads()) == ("ada", {"a": 1})


@pytest.mark.gen_test
async def test_a_revoked_sign_in_is_not_saved_by_a_failing_store() -> None:  # C11
    """If the record cannot be destroyed, nobody is signed in all the same, in this request or the next."""
    core = Core(accounts=AccountTimes({}))
    visitor = Visitor(core)
    core.store.fail["destroy"] = StoreUnavailable("destroy")

    session = await visitor.request()
    with pytest.raises(StoreUnavailable):
        await session.login("ada")
    (record,) = await core.everything()

    assert (session.user, state_of(session).presence, state_of(session).cookie) == (
        None,
        Presence.SIGNED_OUT,
        CookieChange.CLEAR,
    )
    assert not await core.manager._accounts.counts(record)


@pytest.mark.gen_test
async def test_an_unfinished_rotation_costs_a_new_sign_in_at_most(core: Core) -> None:  # D2, D12
    """If the ID changed but nobody heard, the old cookie reads as superseded, and signing in works."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    core.store.fail_after["rotate"] = StoreUnavailable("rotate")

    session = await visitor.request()
    with pytest.raises(StoreUnavailable):
        await session.login("ada")
    visitor.take(session)
    core.store.fail_after.clear()
    again = await visitor.request()
    presence = state_of(again).presence
    await again.login("ada")
    visitor.take(again)

    assert presence is Presence.LATE
    assert (await visitor.request()).user == "ada"


@pytest.mark.gen_test
async def test_an_unexpected_error_is_not_swallowed(core: Core) -> None:
    """A store that breaks its contract is heard of: its exception reaches the handler as it is."""
    core.store.fail["load"] = ZeroDivisionError("a bug in a store")

    with pytest.raises(ZeroDivisionError):
        await core.manager.load(SessionId.mint(), SAFE)
