"""How much a session holds, and over which transport there is one."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from stormcellar import InsecureTransport, SessionTooLarge
from stormcellar.sessions.data.limits import MAX_BYTES, MAX_KEYS
from stormcellar.sessions.request_info import CookieChange
from stormcellar.sessions.session import Session, state_of
from stormcellar.stores import Delta
from tests.support.core import INSECURE, Core, Visitor

WRITING_VERBS = ("commit", "login", "renew", "modify")


@pytest.fixture
def core() -> Core:
    """A manager on an empty store."""
    return Core()


async def write_by(verb: str, session: Session, value: Any) -> None:
    """Save *value* under the key `x` with *verb*."""
    if verb == "modify":
        await session.modify("x", lambda _: value)
        return
    session["x"] = value
    if verb == "login":
        await session.login("ada", keep={"x"})
    else:
        await (session.renew() if verb == "renew" else session.commit())


@pytest.mark.gen_test
async def test_sixty_four_kibibytes_are_the_most(core: Core) -> None:  # G15
    """Keys and values together may take 65 536 bytes and not one more; beyond, nothing is written."""
    fits = "x" * (MAX_BYTES - len("k") - 2)
    visitor = Visitor(core)

    await visitor.writes(k=fits)
    session = await visitor.request()
    session["k"] = fits + "x"
    with pytest.raises(SessionTooLarge):
        await session.commit()

    assert await visitor.reads() == {"k": fits}


@pytest.mark.gen_test
async def test_two_hundred_and_fifty_six_keys_are_the_most(core: Core) -> None:  # G15
    """The limit is on the session as loaded plus what is pending, so a replaced key takes no room."""
    visitor = Visitor(core)
    await visitor.writes(**{f"k{n}": n for n in range(MAX_KEYS)})

    session = await visitor.request()
    del session["k0"]
    session.update(another=1, k1="replaced")
    await visitor.answer(session)
    session = await visitor.request()
    session["one_more"] = 1
    with pytest.raises(SessionTooLarge):
        await session.commit()

    assert len(await visitor.reads()) == MAX_KEYS


@pytest.mark.gen_test
@pytest.mark.parametrize("verb", WRITING_VERBS)
async def test_the_limits_hold_for_every_write(core: Core, verb: str) -> None:  # G15
    """A first write, a sign-in, a renewal and a counter are refused alike, before any store call."""
    visitor = Visitor(core)
    await visitor.writes(a=1)
    core.store.calls.clear()

    for each in (visitor, Visitor(core)) if verb != "renew" else (visitor,):
        with pytest.raises(SessionTooLarge):
            await write_by(verb, await each.request(), "x" * MAX_BYTES)

    assert core.store.calls == {"load": 1}


@pytest.mark.gen_test
async def test_what_sign_in_drops_takes_no_room(core: Core) -> None:  # C3, G15
    """A full anonymous session does not stop a sign-in that keeps something else."""
    visitor = Visitor(core)
    await visitor.writes(big="x" * (MAX_BYTES - 100))

    session = await visitor.request()
    session["cart"] = "y" * (MAX_BYTES - 100)
    await session.login("ada", keep={"cart"})
    await visitor.answer(session)

    assert list(await visitor.reads()) == ["cart"]


@pytest.mark.gen_test
async def test_a_session_past_its_limits_can_shrink_rotate_and_sign_in(core: Core) -> None:  # G15
    """Parallel requests may pass a limit together; that must not lock the session: only growth is refused."""
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    assert visitor.sid is not None
    swollen = {f"k{n}": b'"' + b"x" * 50_000 + b'"' for n in range(4)}
    await core.store.inner.apply(
        visitor.sid.credential, Delta(swollen), now_ms=core.manager.now_ms(), expires_ms=None
    )

    session = await visitor.request()
    await session.renew()
    await session.login("ada")
    visitor.take(session)
    session = await visitor.request()
    del session["k0"]
    await visitor.answer(session)
    session = await visitor.request()
    session["k1"] += "x"
    with pytest.raises(SessionTooLarge):
        await session.commit()

    assert sorted(await visitor.reads()) == ["k1", "k2", "k3"]


# --- transport ---


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("verb", "has_session"),
    [("commit", False), ("modify", False), ("login", False), ("login", True), ("renew", True)],
)
async def test_an_unfit_transport_gets_no_cookie(
    core: Core, verb: str, has_session: bool, caplog: pytest.LogCaptureFixture
) -> None:  # A5
    """What would set a cookie raises InsecureTransport before any write, and the log says what to do."""
    visitor = Visitor(core)
    if has_session:
        await visitor.writes(a=1)
    core.store.calls.clear()

    session = await visitor.request(INSECURE)
    with caplog.at_level(logging.ERROR, "stormcellar"), pytest.raises(InsecureTransport):
        await write_by(verb, session, 1)

    assert state_of(session).cookie is CookieChange.KEEP
    assert core.store.calls.total() == core.store.calls["load"]
    assert [record.getMessage() for record in caplog.records] == [
        "no session cookie for 192.0.2.7: plain HTTP, and the client or the Host is beyond this machine; "
        "serve over TLS with SessionManager(secure=True), or run.py --behind-proxy"
    ]


@pytest.mark.gen_test
async def test_an_unfit_transport_can_still_sign_out(core: Core) -> None:  # A5
    """A session that is live can be read, saved and ended: none of that gives a cookie away."""
    visitor = Visitor(core)
    await visitor.writes(a=1)

    session = await visitor.request(INSECURE)
    session["b"] = 2
    await session.commit()
    saved = dict(session)
    await session.logout()

    assert (saved, state_of(session).cookie) == ({"a": 1, "b": 2}, CookieChange.CLEAR)
    assert await core.everything() == []
