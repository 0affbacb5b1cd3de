"""What a session's life tells to whoever subscribed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop

from stormcellar import Event, Kind, Lifetime, SignInRevoked
from stormcellar.events import Events
from tests.support.browser import Browser
from tests.support.core import CLIENT, SAFE, AccountTimes, Core, Visitor
from tests.support.embedding import Lab, look, post_json


def told(core: Core) -> list[Event]:
    """Return a list that fills with the events of *core*."""
    events: list[Event] = []
    core.manager.events.subscribe(events.append)
    return events


def brief(events: list[Event]) -> list[tuple[Any, ...]]:
    """Return what each of *events* says besides when and from where."""
    return [(event.kind, event.user, event.reason) for event in events]


@pytest.mark.gen_test
async def test_a_life_from_its_first_write_to_its_end() -> None:  # I1
    """Every step is told once, in order, by the handle of the session and the address of its client."""
    core = Core()
    events, visitor = told(core), Visitor(core)
    await visitor.writes(cart=1)
    await visitor.signs_in("ada")
    await visitor.signs_in("ada")
    session = await visitor.request()
    await session.renew()
    await session.expire_in(60)
    await visitor.answer(session)
    assert visitor.sid is not None
    handle = visitor.sid.handle
    await (await visitor.request()).logout()

    assert brief(events) == [
        (Kind.CREATED, None, None),
        (Kind.AUTHENTICATED, "ada", "sign-in"),
        (Kind.AUTHENTICATED, "ada", "again"),
        (Kind.RENEWED, "ada", "asked"),
        (Kind.RENEWED, "ada", "limited"),
        (Kind.DESTROYED, "ada", "logout"),
    ]
    assert {event.handle for event in events} == {handle}
    assert {event.address for event in events} == {CLIENT.address}
    assert {event.at_ms for event in events} == {core.manager.now_ms()}


@pytest.mark.gen_test
async def test_reading_writing_and_looking_are_no_events() -> None:
    """A visitor who looks, and a user who writes, tell nothing."""
    core = Core()
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    events = told(core)
    await Visitor(core).request(SAFE)
    await visitor.writes(a=1)
    await visitor.reads()

    assert events == []


@pytest.mark.gen_test
async def test_a_cookie_whose_session_is_over_is_told() -> None:  # B4, I1
    """There is a newer cookie, the session was ended, or there is no trace of it: each has its reason."""
    core = Core()
    visitor, old = Visitor(core), Visitor(core)
    await visitor.writes(a=1)
    old.sid = visitor.sid
    await visitor.signs_in("ada")
    events = told(core)
    await old.request(SAFE)
    core.clock.advance(1800)
    await visitor.request(SAFE)
    expired, twin = visitor.sid, Visitor(core)
    assert expired is not None
    await twin.signs_in("ada")
    await (await twin.request()).logout()
    await twin.request(SAFE)

    reasons = [(event.reason, event.handle == expired.handle) for event in events if event.kind == "rejected"]
    assert reasons == [("superseded", True), ("unknown", True), ("ended", False)]


@pytest.mark.gen_test
async def test_every_way_to_end_a_session_has_its_reason() -> None:  # C8, C10, C12, I1
    """Revoked by the user, beyond their limit, or because of the account."""
    standing = AccountTimes({"ada": 0})
    core = Core(accounts=standing, lifetime=Lifetime(max_per_user=2))
    first, second, third = Visitor(core), Visitor(core), Visitor(core)
    for each in (first, second, third):
        core.clock.advance(1)
        if each is third:
            events = told(core)
        await each.signs_in("ada")
    assert first.sid and second.sid and third.sid
    await core.manager.revoke_others("ada", than=third.sid.handle)
    await core.manager.revoke("ada", second.sid.handle)
    standing.users["ada"] = core.manager.now_ms()
    core.clock.advance(60)
    await third.request(SAFE)
    await core.manager.drain()

    destroyed = [(event.handle, event.user, event.reason) for event in events if event.kind == Kind.DESTROYED]
    assert destroyed == [
        (first.sid.handle, "ada", "limit"),
        (second.sid.handle, "ada", "revoked"),
        (third.sid.handle, "ada", "account"),
    ]


@pytest.mark.gen_test
async def test_a_sign_in_that_is_revoked_at_once_does_not_count_as_one() -> None:  # C11
    """The session came and went; nobody was authenticated."""
    core = Core(accounts=AccountTimes({}))
    events = told(core)
    with pytest.raises(SignInRevoked):
        await Visitor(core).signs_in("ada")

    assert brief(events) == [(Kind.CREATED, "ada", None), (Kind.DESTROYED, "ada", "account")]


@pytest.mark.gen_test
async def test_a_subscriber_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the next subscriber hears, and the visitor notices nothing."""
    core = Core()

    def fail(event: Event) -> None:
        raise RuntimeError("a subscriber of the test")

    core.manager.events.subscribe(fail)
    events, visitor = told(core), Visitor(core)
    with caplog.at_level(logging.ERROR):
        await visitor.writes(a=1)

    assert brief(events) == [(Kind.CREATED, None, None)]
    assert await visitor.reads() == {"a": 1}
    assert [record.getMessage() for record in caplog.records] == ["event subscriber failed on created"]


@pytest.mark.gen_test
async def test_no_event_holds_a_secret() -> None:  # I2
    """What is told of a session names its handle and nothing that authorises."""
    core = Core()
    events, visitor = told(core), Visitor(core)
    secrets = []
    for _ in range(3):
        await visitor.signs_in("ada")
        assert visitor.sid is not None
        secrets += [visitor.sid.secret, visitor.sid.credential.verifier]

    assert not any(secret in repr(events) for secret in secrets)


# --- over HTTP ---


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """An application with one page."""
    lab = Lab()
    lab.serve("/", get=look, post=look)
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("id=2|junk", [(Kind.REJECTED, None, "cookie")]),
        ("id=a; id=b", [(Kind.REJECTED, None, "cookie")]),
        ("id=", []),
        ("other=1", []),
        ("id-form=x", []),
    ],
)
@pytest.mark.gen_test
async def test_a_cookie_that_we_did_not_sign_is_told(
    cookie: str, expected: list[Any], lab: Lab, http_client: AsyncHTTPClient, http_port: int
) -> None:  # H9, I1
    """One event a request, without what was sent; other people's cookies are none of our business."""
    events: list[Event] = []
    lab.sessions.events.subscribe(events.append)
    response = await Browser(http_client, f"http://127.0.0.1:{http_port}").fetch(
        "GET", "/", headers={"Cookie": cookie}
    )

    assert response.code == 200
    assert brief(events) == expected
    assert "junk" not in repr(events)


@pytest.mark.gen_test
async def test_a_form_without_its_token_is_told(
    lab: Lab, http_client: AsyncHTTPClient, http_port: int
) -> None:  # F1, I1
    """With the handle of the session whose cookie came along; JSON needs no token."""
    browser = Browser(http_client, f"http://127.0.0.1:{http_port}")
    sid = await lab.open_session(browser, user="ada")
    events: list[Event] = []
    lab.sessions.events.subscribe(events.append)
    refused = await browser.fetch("POST", "/", body=b"a=1")
    accepted = await post_json(browser)

    assert (refused.code, accepted.code) == (403, 200)
    assert [(e.kind, e.handle, e.address) for e in events] == [(Kind.FORM_REJECTED, sid.handle, "127.0.0.1")]


@pytest.mark.gen_test
async def test_a_session_that_another_user_takes_over_is_told() -> None:  # I1
    """The first user's ends by the handle that the second one's goes on under."""
    core = Core()
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    assert visitor.sid is not None
    events = told(core)
    await visitor.signs_in("bob")

    assert brief(events) == [(Kind.DESTROYED, "ada", "replaced"), (Kind.AUTHENTICATED, "bob", "sign-in")]
    assert {event.handle for event in events} == {visitor.sid.handle}


@pytest.mark.gen_test
async def test_of_two_sign_outs_one_is_told() -> None:  # I1
    """The second one ended nothing."""
    core = Core()
    visitor = Visitor(core)
    await visitor.signs_in("ada")
    sessions = [await visitor.request() for _ in range(2)]
    events = told(core)
    for session in sessions:
        await session.logout()

    assert brief(events) == [(Kind.DESTROYED, "ada", "logout")]


def test_subscriber_that_left_is_called_no_more() -> None:
    """The others are, also if it leaves while it is called; who never subscribed cannot leave."""
    events, seen = Events(lambda: 0), list[str]()

    def once(event: Event) -> None:
        seen.append("once")
        events.unsubscribe(once)

    events.subscribe(once)
    events.subscribe(lambda event: seen.append("always"))
    events.emit(Kind.CREATED)
    events.emit(Kind.CREATED)

    assert seen == ["once", "always", "always"]
    with pytest.raises(ValueError, match="not in list"):
        events.unsubscribe(once)
