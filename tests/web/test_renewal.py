"""Periodic renewal: a new session ID in passing, with a grace for requests that are under way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from stormcellar import Lifetime, SessionChanged
from stormcellar.events import Event, Kind
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.request_info import Client, FixedRequestInfo, Presence
from stormcellar.sessions.session import state_of
from stormcellar.stores import Delta, StoreUnavailable
from tests.support.browser import Browser, token
from tests.support.core import Core, Visitor
from tests.support.embedding import JSON, Lab, count, look, post_json, set_names

RENEWING = Lifetime(renew_s=900, grace_s=60)


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application that renews session IDs after 15 minutes."""
    lab = Lab(lifetime=RENEWING)
    lab.serve("/", get=look, post=count)
    lab.serve("/form", get=lambda self: self.write(self.xsrf_form_html()), post=look)
    lab.serve("/poll", get=look, session_activity=False)
    lab.serve("/logout", post=_logout)
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


async def _logout(self: Any) -> None:
    await self.session.logout()


def _set(self: Any, number: str) -> None:
    self.session[f"key{number}"] = 1


async def presence(lab: Lab, sid: SessionId) -> Presence:
    """Return what stands behind *sid* now."""
    return (state_of(await lab.sessions.load(sid, FixedRequestInfo(Client("127.0.0.1", "test"))))).presence


def held(lab: Lab, browser: Browser) -> SessionId:
    """Return the session ID that *browser* holds."""
    sid = lab.sessions.cookies.read([f"id={browser.cookies['id']}"])
    assert sid is not None
    return sid


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.gen_test
async def test_an_old_id_is_replaced_in_passing(method: str, lab: Lab, browser: Browser) -> None:  # C13
    """A request after the period gets another ID, with what it wrote in one step; one before does not."""
    old = await lab.open_session(browser, user="alice")
    lab.clock.advance(899.999)
    early = await browser.get("/")
    lab.clock.advance(0.001)
    lab.store.calls.clear()
    response = await browser.fetch(method, "/", body=b"{}" if method == "POST" else None, headers=JSON)
    new = held(lab, browser)

    assert set_names(early) == []
    assert (response.code, set_names(response)) == (200, ["id"])
    assert (new.handle, new.secret == old.secret) == (old.handle, False)
    assert dict(lab.store.calls) == {"load": 1, "rotate": 1}
    assert await lab.data() == ({"visits": 1} if method == "POST" else {})


@pytest.mark.gen_test
async def test_the_old_id_serves_for_the_grace_and_not_a_moment_longer(
    lab: Lab, browser: Browser
) -> None:  # C13
    """Requests under way read and write; a minute later the old ID is superseded, and nothing is ended."""
    old = await lab.open_session(browser, user="alice")
    slow = browser.copy()
    lab.clock.advance(900)
    await browser.get("/")
    lab.clock.advance(59.999)
    within = await post_json(slow)
    lab.clock.advance(0.001)
    after = await slow.get("/")

    assert (within.code, set_names(within)) == (200, [])
    assert json.loads(after.body)["user"] is None
    assert await presence(lab, old) is Presence.NONE
    assert json.loads((await browser.get("/")).body) == {"user": "alice", "data": {"visits": 1}}


@pytest.mark.gen_test
async def test_of_many_requests_at_once_one_renews_and_all_are_served(
    lab: Lab, browser: Browser
) -> None:  # C13, D2
    """All have loaded before any renews; the others save under the old ID and leave the cookie alone."""
    lab.serve("/set/(.)", post=_set)
    await lab.open_session(browser, user="alice")
    lab.clock.advance(900)
    gates = [lab.store.gate("rotate") for _ in range(8)]
    requests = asyncio.gather(*[post_json(browser.copy(), f"/set/{number}") for number in range(8)])
    for gate in gates:
        await gate.reached()
    for gate in gates:
        gate.open()
    responses = await requests

    assert [response.code for response in responses] == [200] * 8
    assert sum(set_names(response) == ["id"] for response in responses) == 1
    assert await lab.data() == {f"key{number}": 1 for number in range(8)}


@pytest.mark.gen_test
async def test_grace_ends_with_a_change_of_privilege(lab: Lab, browser: Browser) -> None:  # C13
    """A sign-out after a renewal ends the old ID at once."""
    old = await lab.open_session(browser, user="alice")
    lab.clock.advance(900)
    await browser.get("/")
    in_grace = await presence(lab, old)
    await post_json(browser, "/logout")

    assert in_grace is Presence.LIVE
    assert await presence(lab, old) is Presence.LATE


@pytest.mark.gen_test
async def test_forms_opened_before_a_renewal_still_fit(lab: Lab, browser: Browser) -> None:  # C13, C15
    """What a person has been typing is not lost to it."""
    await lab.open_session(browser, user="alice")
    opened = token(await browser.get("/form"))
    lab.clock.advance(900)
    renewed = await browser.get("/")
    response = await browser.fetch(
        "POST",
        "/form",
        body=f"_xsrf={opened}",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )

    assert set_names(renewed) == ["id"]
    assert response.code == 200


@pytest.mark.gen_test
async def test_neither_deadline_nor_sign_in_moves(lab: Lab, browser: Browser) -> None:  # B3
    """Renewal proves nothing, so the absolute limit and the time of sign-in stay."""
    await lab.open_session(browser, user="alice")
    (before,) = await lab.records()
    lab.clock.advance(900)
    await browser.get("/")
    (after,) = await lab.records()

    assert (after.deadline_ms, after.auth_ms) == (before.deadline_ms, before.auth_ms)
    assert after.rotated_ms == before.rotated_ms + 900_000


@pytest.mark.gen_test
async def test_what_is_no_activity_renews_nothing(lab: Lab, browser: Browser) -> None:  # B8
    """A page that polls leaves the ID to the next request of the person."""
    await lab.open_session(browser, user="alice")
    lab.clock.advance(900)
    polled = await browser.get("/poll")

    assert set_names(polled) == []


@pytest.mark.gen_test
async def test_a_page_does_not_fail_over_its_renewal(lab: Lab, browser: Browser) -> None:  # G13
    """What was read is shown; the next request tries again. What was written must be saved, or it is 503."""
    await lab.open_session(browser, user="alice")
    lab.clock.advance(900)
    lab.store.fail["rotate"] = StoreUnavailable("rotate")
    read = await browser.get("/")
    written = await post_json(browser)
    del lab.store.fail["rotate"]
    later = await browser.get("/")

    assert (read.code, set_names(read)) == (200, [])
    assert (written.code, set_names(written)) == (503, [])
    assert set_names(later) == ["id"]


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 409)])
@pytest.mark.gen_test
async def test_a_session_that_ends_meanwhile_is_not_renewed(
    method: str, status: int, lab: Lab, browser: Browser
) -> None:  # D1
    """A page that was read goes out without a cookie; a write is refused; nothing comes back to life."""
    sid = await lab.open_session(browser, user="alice")
    lab.clock.advance(900)
    gate = lab.store.gate("rotate")
    request = asyncio.ensure_future(
        browser.fetch(method, "/", body=b"{}" if method == "POST" else None, headers=JSON)
    )
    await gate.reached()
    await lab.end(sid.handle)
    gate.open()
    response = await request

    assert (response.code, set_names(response)) == (status, [])
    assert await lab.records() == []


@pytest.mark.gen_test
async def test_an_error_of_the_server_renews_nothing(lab: Lab, browser: Browser) -> None:
    """A 5xx drops what was changed, and the ID with it."""

    def fail(self: Any) -> None:
        self.set_status(500)

    lab.serve("/fail", get=fail)
    await lab.open_session(browser, user="alice")
    lab.clock.advance(900)

    assert set_names(await browser.get("/fail")) == []


@pytest.mark.gen_test
async def test_an_id_that_was_just_changed_is_not_changed_again(lab: Lab, browser: Browser) -> None:  # D2
    """A handler that signs somebody in, or asks for a new ID, gets that one, without a grace for the old."""

    async def renew(self: Any) -> None:
        await self.session.renew()

    lab.serve("/renew", post=renew)
    old = await lab.open_session(browser, user="alice")
    lab.clock.advance(900)
    response = await post_json(browser, "/renew")

    assert set_names(response) == ["id"]
    assert lab.store.calls["rotate"] == 1
    assert await presence(lab, old) is Presence.LATE


@pytest.mark.gen_test
async def test_a_verb_under_way_takes_the_place_of_the_renewal(lab: Lab, browser: Browser) -> None:  # D2
    """A sign-in that the handler does not wait for decides the ID, though its end comes after the page's."""
    tasks = []

    async def login(self: Any) -> None:
        tasks.append(asyncio.ensure_future(self.session.login("bob")))
        await asyncio.sleep(0)

    lab.serve("/login", post=login)
    old = await lab.open_session(browser, user="alice")
    lab.clock.advance(900)
    response = await post_json(browser, "/login")
    await asyncio.gather(*tasks)

    assert (response.code, set_names(response)) == (200, ["id"])
    assert lab.store.calls["rotate"] == 1
    assert await presence(lab, old) is Presence.LATE


@pytest.mark.gen_test
async def test_no_id_is_renewed_over_a_transport_that_must_not_carry_it(
    lab: Lab, browser: Browser
) -> None:  # A5
    """The page is answered, not refused, though it could be given no cookie."""
    await lab.open_session(browser, user="alice")
    lab.clock.advance(900)
    response = await browser.get("/", Host="example.com")

    assert (response.code, set_names(response)) == (200, [])
    assert lab.store.calls["rotate"] == 0


@pytest.mark.parametrize("user", ["alice", "bob"])
@pytest.mark.gen_test
async def test_signing_in_during_the_grace_leaves_no_session_behind(
    user: str, lab: Lab, browser: Browser
) -> None:  # C1, C13
    """Whoever proves a password by the old ID gets the session with what may survive; the newer ID ends."""

    async def login(self: Any) -> None:
        await self.session.login(user, afresh=False)

    lab.serve("/login", post=login)
    await lab.open_session(browser, user="alice", cart=1)
    slow = browser.copy()
    lab.clock.advance(900)
    await browser.get("/")
    response = await post_json(slow, "/login")

    assert response.code == 200
    assert json.loads((await slow.get("/")).body) == {
        "user": user,
        "data": {"cart": 1} if user == "alice" else {},
    }
    assert json.loads((await browser.get("/")).body)["user"] is None
    assert len(await lab.records()) == 1


async def in_grace(core: Core, **data: Any) -> tuple[Visitor, Visitor]:
    """Return a visitor with the ID of before a renewal, still in its grace, and one with the ID of after."""
    old = Visitor(core)
    session = await old.request()
    session.update(data)
    await session.login("ada", keep=data)
    await old.answer(session)
    core.clock.advance(900)
    new = old.twin()
    renewing = await new.request()
    await core.manager.lifecycle.commit_and_renew(state_of(renewing), Delta())
    new.take(renewing)
    assert new.sid != old.sid
    return old, new


@pytest.mark.gen_test
async def test_a_proof_in_the_grace_overwrites_nothing_newer() -> None:  # C13, D3
    """A list that was only read is not written back over what another tab added to it."""
    core = Core(lifetime=RENEWING)
    old, new = await in_grace(core, cart=["a"], theme="dark")
    session = await old.request()
    read = session["cart"], session["theme"]
    await new.writes(cart=["a", "b"])
    await session.login("ada", afresh=False)
    await old.answer(session)

    assert read == (["a"], "dark")
    assert await old.reads() == {"cart": ["a", "b"], "theme": "dark"}


@pytest.mark.parametrize("meanwhile", ["another proof", "a sign-out"])
@pytest.mark.gen_test
async def test_a_proof_in_the_grace_counts_once_and_revives_nothing(meanwhile: str) -> None:  # C5, D1, D7
    """Of two proofs at once one goes on; after a sign-out none does."""
    core = Core(lifetime=RENEWING)
    old, new = await in_grace(core)
    sessions = [await old.request() for _ in range(2 if meanwhile == "another proof" else 1)]
    gates = [core.store.gate("rotate") for _ in sessions]
    before = core.store.calls.total()
    proofs = asyncio.gather(
        *[session.login("ada", afresh=False) for session in sessions], return_exceptions=True
    )
    for gate in gates:
        await gate.reached()
    if meanwhile == "a sign-out":
        assert new.sid is not None
        await core.store.inner.destroy(new.sid.handle, now_ms=core.manager.now_ms())
    for gate in gates:
        gate.open()
    failed = [type(result) for result in await proofs if result is not None]

    assert failed == [SessionChanged]
    # One step each, so that nothing can come between two halves.
    assert core.store.calls.total() == before + len(sessions)
    assert len(await core.everything()) == (1 if meanwhile == "another proof" else 0)


@pytest.mark.parametrize("user", ["ada", "bob"])
@pytest.mark.gen_test
async def test_a_session_that_is_taken_over_is_told_once(user: str) -> None:  # I1
    """By its own handle and user, if another user signs in."""
    core = Core(lifetime=RENEWING)
    old, new = await in_grace(core)
    session = await old.request()
    events: list[Event] = []
    core.manager.events.subscribe(events.append)
    await session.login(user)
    assert new.sid is not None

    told = [(e.kind, e.handle == new.sid.handle, e.user) for e in events]
    replaced = [] if user == "ada" else [(Kind.DESTROYED, True, "ada")]
    assert told == [*replaced, (Kind.AUTHENTICATED, True, user)]


@pytest.mark.gen_test
async def test_a_session_over_the_limit_can_be_proved_in_the_grace() -> None:  # G15
    """Parallel writers may pass a limit together; what grew not is not refused."""
    core = Core(lifetime=RENEWING)
    old, new = await in_grace(core)
    assert new.sid is not None
    big = {f"key{number}": b'"' + b"x" * 30_000 + b'"' for number in range(3)}
    await core.store.inner.apply(
        new.sid.credential, Delta(big), now_ms=core.manager.now_ms(), expires_ms=None
    )
    await old.signs_in("ada", afresh=False)

    assert len(await old.reads()) == 3
