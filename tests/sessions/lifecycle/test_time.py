"""How long sessions live, and what is stored of them meanwhile."""

from __future__ import annotations

import pytest

from stormcellar import Lifetime
from stormcellar.sessions.request_info import CookieChange, Presence
from stormcellar.sessions.session import state_of
from tests.support.core import UNSAFE, Core, Visitor

HOUR_S = 3600


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


@pytest.mark.gen_test
@pytest.mark.parametrize(("user", "idle_s"), [(None, 300), ("ada", 1800)])
async def test_idle_sessions_end_to_the_millisecond(user: str | None, idle_s: int) -> None:  # B1, B5, B11
    """Visitors and users idle for limits of their own, exact whether or not the record is still there."""
    core = Core(lifetime=Lifetime(idle_s=1800, anonymous_s=300))
    visitor = Visitor(core)
    await (visitor.signs_in(user) if user else visitor.writes(a=1))

    core.clock.advance(idle_s - 0.001)
    live = state_of(await visitor.request()).presence
    core.clock.advance(0.001)
    ended = await visitor.request()

    assert (live, state_of(ended).presence, state_of(ended).cookie) == (
        Presence.LIVE,
        Presence.NONE,
        CookieChange.CLEAR,
    )


@pytest.mark.gen_test
async def test_activity_keeps_a_session_up_to_its_deadline(core: Core) -> None:  # B1, B2
    """Each write slides the idle limit; at the absolute limit the session ends all the same."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")

    for n in range(47):
        core.clock.advance(900)
        await visitor.writes(n=n)
    core.clock.advance(899.999)
    last = state_of(await visitor.request()).presence
    core.clock.advance(0.001)

    assert (last, state_of(await visitor.request()).presence) == (Presence.LIVE, Presence.NONE)


@pytest.mark.gen_test
async def test_renewal_does_not_move_the_deadline(core: Core) -> None:  # B3
    """Twelve hours after sign-in the session is over, however often its ID was changed."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")

    for _ in range(47):
        core.clock.advance(900)
        session = await visitor.request()
        await session.renew()
        visitor.take(session)
    core.clock.advance(900)

    assert state_of(await visitor.request()).presence is Presence.NONE


@pytest.mark.gen_test
async def test_sign_in_sets_a_new_deadline(core: Core) -> None:  # B3
    """What was left of an anonymous session's time does not shorten that of the signed-in one."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    core.clock.advance(1000)

    await visitor.signs_in("ada")
    record = await core.stored(visitor.sid)

    assert record.deadline_ms == core.manager.now_ms() + 12 * HOUR_S * 1000
    assert record.created_ms == core.manager.now_ms() - 1_000_000


@pytest.mark.gen_test
async def test_a_clock_set_back_ends_nothing_and_shortens_nothing(core: Core) -> None:  # B6
    """With the clock an hour behind, reads, writes and renewals go on, and the expiry does not move back."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    before = await core.stored(visitor.sid)

    core.clock.advance(-HOUR_S)
    session = await visitor.writes(a=1)
    after = await core.stored(visitor.sid)

    assert session.record == after
    assert (after.expires_ms, after.seen_ms, after.deadline_ms) == (
        before.expires_ms,
        before.seen_ms,
        before.deadline_ms,
    )
    assert await visitor.reads() == {"a": 1}


# --- what is stored ---


@pytest.mark.gen_test
async def test_the_store_holds_no_secret(core: Core) -> None:  # G1, G3
    """No secret of any ID, past or present, is anywhere in a record; values and client are JSON."""
    visitor = Visitor(core)
    secrets = []
    for _ in range(2):
        await visitor.writes(a=["text"])
        assert visitor.sid is not None
        secrets.append(visitor.sid.secret)
        await visitor.signs_in("ada")
        secrets.append(visitor.sid.secret)
    (record,) = await core.everything()

    assert not [secret for secret in secrets if secret in repr(record)]
    assert record.data == {"a": b'["text"]'}
    assert record.client == b'{"address":"192.0.2.7","agent":"Mozilla/5.0 (a test)"}'


def test_a_client_is_stored_within_bounds() -> None:  # H8
    """Whatever a client calls itself is cut and made text, so that it cannot stop a sign-in."""
    hostile = UNSAFE.client._replace(address="9" * 500, agent="\ud800" + "x" * 10_000).encode()

    assert len(hostile) < 400
    assert b'"agent":"?xxx' in hostile
