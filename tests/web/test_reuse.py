"""Session IDs that were renewed away and come back: sign-out, the event, and the policy."""

from __future__ import annotations

import pytest

from stormcellar import Lifetime, SessionManager
from stormcellar.events import Event, Kind
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import CookieChange
from stormcellar.sessions.session import state_of
from stormcellar.stores import Delta, StoreUnavailable
from stormcellar.stores.memory import MemoryStore
from tests.support.core import KEY, SAFE, Core, Visitor
from tests.support.fakes import Clock

RENEWING = Lifetime(renew_s=900, grace_s=60)


def opened(on_reuse: str = "tell", lifetime: Lifetime = RENEWING) -> tuple[Core, list[Event]]:
    """Return a manager that renews session IDs, and its events from now on."""
    core = Core(lifetime=lifetime)
    core.manager = SessionManager(
        core.store,
        secrets=[KEY],
        lifetime=lifetime,
        on_reuse=on_reuse,  # type: ignore[arg-type]
        clock=core.clock,
    )
    events: list[Event] = []
    core.manager.events.subscribe(events.append)
    return core, events


async def renewed(visitor: Visitor, times: int = 1) -> None:
    """Renew the ID that *visitor* has, *times* times."""
    for _ in range(times):
        visitor.core.clock.advance(900)
        session = await visitor.request()
        await visitor.core.manager.lifecycle.commit_and_renew(state_of(session), Delta())
        visitor.take(session)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("after_s", [0, 59, 61, 800])
@pytest.mark.gen_test
async def test_signing_out_by_a_renewed_id_ends_the_session(times: int, after_s: float) -> None:  # C5
    """In the grace, right after it, and long after; also by the ID before the last."""
    core, events = opened()
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    old = visitor.twin()
    await renewed(visitor, times)
    core.clock.advance(after_s)
    events.clear()

    session = await old.request()
    await session.logout()
    cookie = old.take(session)

    assert (await visitor.request(SAFE)).user is None
    assert (await core.everything(), cookie) == ([], CookieChange.CLEAR)
    assert [(e.user, e.reason) for e in events if e.kind is Kind.DESTROYED] == [("ada", "logout")]


@pytest.mark.gen_test
async def test_an_anonymous_id_has_no_power_over_the_user() -> None:  # C3
    """A cookie from before the sign-in, which an attacker may have set, signs nobody out."""
    core, events = opened("end")
    visitor = Visitor(core)
    await visitor.writes(cart=1)
    before = visitor.twin()
    await visitor.signs_in("ada")
    await renewed(visitor)
    core.clock.advance(100)

    session = await before.request()
    await session.logout()

    assert (await visitor.request(SAFE)).user == "ada"
    assert [e.reason for e in events if e.kind is Kind.REJECTED] == ["superseded"]


@pytest.mark.parametrize("on_reuse", ["tell", "end"])
@pytest.mark.gen_test
async def test_an_id_that_comes_back_long_after_is_told(on_reuse: str) -> None:  # C5
    """It may be a stolen one. By `end` the session is over for both."""
    core, events = opened(on_reuse)
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    old = visitor.twin()
    await renewed(visitor)
    core.clock.advance(100)
    events.clear()

    session = await old.request(SAFE)
    page = await visitor.request(SAFE)

    is_ended = on_reuse == "end"
    assert (session.user, page.user) == (None, None if is_ended else "ada")
    told = [(e.kind, e.user, e.reason) for e in events]
    assert told[: is_ended + 1] == [(Kind.DESTROYED, "ada", "reused")] * is_ended + [
        (Kind.REJECTED, None, "reused")
    ]


@pytest.mark.gen_test
async def test_a_late_request_is_no_reuse() -> None:
    """With a grace shorter than an answer may take, a request on its way comes after it."""
    core, events = opened("end", Lifetime(renew_s=900, grace_s=1))
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    old = visitor.twin()
    await renewed(visitor)
    core.clock.advance(10)

    await old.request(SAFE)

    assert (await visitor.request(SAFE)).user == "ada"
    assert [e.reason for e in events if e.kind is Kind.REJECTED] == ["superseded"]


@pytest.mark.gen_test
async def test_without_renewal_nothing_more_is_asked() -> None:
    """A superseded cookie costs one store call."""
    core, _ = opened(lifetime=Lifetime())
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    old = visitor.twin()
    await visitor.signs_in("ada")
    core.clock.advance(100)
    core.store.calls.clear()

    await old.request(SAFE)

    assert core.store.calls == {"load": 1}


@pytest.mark.gen_test
async def test_a_store_that_fails_then_is_told() -> None:  # G13
    """A sign-out that cannot be done is not reported as done."""
    core, _ = opened()
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    old = visitor.twin()
    await renewed(visitor)
    core.clock.advance(100)
    session = await old.request()
    core.store.fail["destroy"] = StoreUnavailable("down")

    with pytest.raises(StoreUnavailable):
        await session.logout()

    assert (await visitor.request(SAFE)).user == "ada"


def test_ids_of_one_family() -> None:
    """A renewed ID keeps its family, a rotated one does not; the family reveals nothing of the secret."""
    sid = SessionId.mint()

    assert sid.renewed().family == sid.family
    assert sid.rotated().family != sid.family
    assert sid.secret[:16] not in sid.family


def test_a_wrong_policy_is_refused() -> None:
    """The message names the two that exist."""
    with pytest.raises(ValueError, match="on_reuse must be 'tell' or 'end', not 'log'"):
        SessionManager(MemoryStore(), secrets=[KEY], on_reuse="log", clock=Clock())  # type: ignore[arg-type]
