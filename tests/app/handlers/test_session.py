"""The session over HTTP: reading extends nothing, writing loses nothing, hostile bodies change nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from stormcellar.lifetime import Lifetime
from stormcellar.stores import Delta
from tests.support.browser import Browser
from tests.support.site import JSON, OpenSite, Site, session_handle, sign_in

NOBODY: dict[str, Any] = {
    "user": None,
    "data": {},
    "created_at": None,
    "authenticated_at": None,
    "idle_expires_in": None,
    "absolute_expires_in": None,
}


async def patch(browser: Browser, body: str | bytes, **headers: str) -> tuple[int, Any]:
    """Send a body as it is to PATCH /session."""
    sent = {"Content-Type": JSON, **headers}
    response = await browser.fetch("PATCH", "/session", body=body, headers=sent)
    return response.code, json.loads(response.body)


# --- reading ---


@pytest.mark.gen_test
async def test_a_visitor_has_an_empty_session(site: Site) -> None:
    """Who has no cookie reads an empty session, and gets no cookie, no record and no store call for it."""
    browser = site.browser()

    assert await browser.json("GET", "/session") == (200, NOBODY)
    assert browser.cookies == {}  # A15
    assert site.store.calls.total() == 0


PAGES = (
    *("/", "/login", "/signed-out", "/idle.css?left=1", "/session", "/healthz", "/readyz", "/nowhere"),
    *("/account/sessions", "/account/password", "/account/confirm"),
)


@pytest.mark.gen_test
async def test_browsing_leaves_nothing_behind(site: Site) -> None:
    """Every page, every error and every refused sign-in of a visitor leaves the store empty."""
    browser = site.browser()
    for path in PAGES:
        for accept in ("text/html", JSON):
            await browser.get(path, Accept=accept)
    await sign_in(browser, password="wrong")
    await browser.json("POST", "/logout")
    await browser.json("PATCH", "/session", {})
    await browser.json("PATCH", "/session", {"absent": None})
    await browser.json("POST", "/session/increment", {"key": "n", "by": "x"})

    assert "id" not in browser.cookies
    assert await site.records() == []  # A15
    assert set(site.store.calls) == {"ping", "peek", "take"}  # the last two count the refused sign-in


@pytest.mark.gen_test
async def test_the_session_tells_its_times(open_site: OpenSite) -> None:
    """Creation and sign-in as UTC, the two limits as the seconds that are left."""
    site = open_site(lifetime=Lifetime(idle_s=600, absolute_s=3600, anonymous_s=300))
    browser = site.browser()
    await browser.json("PATCH", "/session", {"a": 1})
    site.clock.advance(10)
    await sign_in(browser)
    site.clock.advance(5)

    assert await browser.json("GET", "/session") == (
        200,
        {
            "user": "alice",
            "data": {},
            "created_at": "2030-03-17T17:46:40Z",
            "authenticated_at": "2030-03-17T17:46:50Z",
            "idle_expires_in": 595,
            "absolute_expires_in": 3595,
        },
    )


@pytest.mark.gen_test
async def test_asking_for_the_time_left_extends_nothing(open_site: OpenSite) -> None:
    """However often and in parallel a client asks, the session ends when it would have ended."""
    site = open_site(lifetime=Lifetime(idle_s=600, absolute_s=3600, touch_after_s=0))
    browser = await site.signed_in()
    before = await site.records()
    for _ in range(5):
        site.clock.advance(119)
        await asyncio.gather(*(browser.copy().json("GET", "/session") for _ in range(10)))
        await browser.fetch("HEAD", "/session")

    assert await site.records() == before  # B9
    assert site.store.calls["apply"] == 0
    assert (await browser.json("GET", "/session"))[1]["idle_expires_in"] == 5
    site.clock.advance(5)
    assert await browser.json("GET", "/session") == (200, NOBODY)


@pytest.mark.gen_test
async def test_opening_a_page_keeps_the_session_alive(open_site: OpenSite) -> None:
    """A page is activity, and moves the end of the session; the absolute limit stays."""
    site = open_site(lifetime=Lifetime(idle_s=600, absolute_s=900, anonymous_s=600))
    browser = await site.signed_in()
    site.clock.advance(500)
    await browser.get("/")
    await site.sessions.drain()
    site.clock.advance(399)
    still = (await browser.json("GET", "/session"))[1]
    site.clock.advance(1)
    over = (await browser.json("GET", "/session"))[1]

    assert (still["user"], still["idle_expires_in"], still["absolute_expires_in"]) == ("alice", 1, 1)
    assert over == NOBODY


@pytest.mark.gen_test
async def test_an_expired_session_is_destroyed_and_its_cookie_deleted(site: Site) -> None:
    """Ten minutes after its time the record is gone from the store, and the browser forgets the ID."""
    browser = await site.signed_in()
    site.clock.advance(1800 + 600)
    page = await browser.get("/")

    assert b"You are not signed in" in page.body
    assert len(site.store.inner) == 0  # type: ignore[arg-type]  # B4
    assert "id" not in browser.cookies


# --- writing ---


@pytest.mark.gen_test
async def test_each_member_replaces_its_key_whole(site: Site) -> None:
    """Objects are not merged, null removes, other keys stay, and the answer shows the result by key."""
    browser = site.browser()
    await browser.json("PATCH", "/session", {"b": {"x": 1, "y": 2}, "a": [1], "c": 0})
    status, body = await browser.json("PATCH", "/session", {"b": {"z": 3}, "a": None, "d": False})

    assert (status, list(body["data"].items())) == (200, [("b", {"z": 3}), ("c", 0), ("d", False)])
    assert (await browser.json("GET", "/session"))[1]["data"] == body["data"]


@pytest.mark.gen_test
async def test_a_sessions_keys_are_its_own(site: Site) -> None:
    """Data that is called like what the server keeps changes nothing of who somebody is."""
    browser = await site.signed_in()
    claims = {"user": "bob", "auth_ms": 9, "is_admin": True, "handle": "x", "expires_ms": 0, "data": {}}
    status, body = await browser.json("PATCH", "/session", claims)

    assert (status, body["user"], body["data"]) == (200, "alice", claims)  # C4
    assert (await browser.json("GET", "/account/sessions"))[1]["sessions"][0]["current"] is True


KEYS = ["", "#user", "$set", "a.b", "1a", "a b", "a" * 65, "é", "a\0", "__proto__\n", "{tag}", "a/b", "-a"]


@pytest.mark.gen_test
@pytest.mark.parametrize("key", KEYS)
async def test_a_key_outside_the_grammar_is_refused_whole(key: str, site: Site) -> None:
    """Nothing of the request is written, not its good keys either."""
    browser = site.browser()
    answers = [
        await browser.json("PATCH", "/session", {"good": 1, key: 1}),
        await browser.json("PATCH", "/session", {"good": 1, key: None}),
        await browser.json("POST", "/session/increment", {"key": key, "by": 1}),
    ]

    assert [(status, body["error"]["code"]) for status, body in answers] == [(400, "bad_request")] * 3
    assert site.store.calls.total() == 0


@pytest.mark.gen_test
async def test_a_session_that_would_grow_too_large_stays_as_it_was(site: Site) -> None:
    """Beyond 64 KiB or 256 keys the answer is 413, nothing is written, and the session goes on."""
    browser = site.browser()
    await browser.json("PATCH", "/session", {"a": "x" * 60_000})
    large = await browser.json("PATCH", "/session", {"b": "x" * 6_000, "c": 1})
    many = await browser.json("PATCH", "/session", {f"k{n}": n for n in range(256)})

    for status, body in (large, many):
        assert (status, body["error"]["code"]) == (413, "session_too_large")
    assert (await browser.json("PATCH", "/session", {"a": 1}))[1]["data"] == {"a": 1}


@pytest.mark.gen_test
async def test_a_late_write_is_refused(site: Site) -> None:
    """A write right after the sign-out elsewhere is refused, told so, and makes no new session."""  # D1
    browser = await site.signed_in()
    old = browser.copy()
    await browser.json("POST", "/logout")
    status, body = await old.json("PATCH", "/session", {"a": 1})
    counted, _ = await old.json("POST", "/session/increment", {"key": "n"})

    assert (status, body["error"]["code"], counted) == (409, "session_ended", 409)
    assert body["error"]["message"] == "Your session has ended. Nothing was saved. Try again, or sign in."
    assert await site.records() == []


@pytest.mark.gen_test
async def test_after_the_expiry_a_write_is_that_of_a_visitor(site: Site) -> None:
    """It begins a new session, which has nothing of the old one."""  # A2
    browser = await site.signed_in()
    handle = session_handle(site, browser)
    site.clock.advance(1800)
    status, body = await browser.json("PATCH", "/session", {"a": 1})

    assert (status, body["user"], body["data"]) == (200, None, {"a": 1})
    assert session_handle(site, browser) != handle


# --- hostile bodies ---

HOSTILE = {
    "nested too deep": '{"a": ' + "[" * 65 + "]" * 65 + "}",
    "nested far too deep": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "objects too deep": '{"a": ' * 5_000 + "1" + "}" * 5_000,
    "a huge integer": '{"a": ' + "9" * 5_000 + "}",
    "an integer of 20 digits": '{"a": 99999999999999999999}',
    "a float beyond all": '{"a": 1e999}',
    "a negative one": '{"a": -1e999}',
    "NaN": '{"a": NaN}',
    "Infinity": '{"a": [Infinity]}',
    "a lone surrogate": '{"a": "\\ud800"}',
    "a lone surrogate as a key": '{"\\udfff": 1}',
    "a control character": '{"a": "\x01"}',
    "a comment": '{"a": 1 /* x */}',
    "a trailing comma": '{"a": 1,}',
    "single quotes": "{'a': 1}",
    "a byte order mark": '\ufeff{"a": 1}',
    "not an object": "[1]",
    "null": "null",
    "nothing": "",
    "spaces": "   ",
    "half": '{"a": ',
    "two": '{"a": 1}{"b": 2}',
}


@pytest.mark.gen_test
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_json_is_refused_and_changes_nothing(body: str, site: Site) -> None:
    """What is no JSON, or more than anybody needs, is a 400 that says why; the store is not called."""
    browser = site.browser()
    for method, path in (("PATCH", "/session"), ("POST", "/session/increment"), ("POST", "/login")):
        response = await browser.fetch(
            method, path, body=body, headers={"Content-Type": JSON, "Accept": JSON}
        )

        assert response.code == 400  # H4
        assert json.loads(response.body)["error"]["code"] == "bad_request"
    assert site.store.calls.total() == 0


@pytest.mark.gen_test
@pytest.mark.parametrize("body", [b"\xff{}", b'{"a": "\xc3\x28"}', '{"a": 1}'.encode("utf-16")])
async def test_json_that_is_not_utf_8_is_refused(body: bytes, site: Site) -> None:
    """Other encodings are not guessed."""
    assert (await patch(site.browser(), body))[0] == 400  # H4


@pytest.mark.gen_test
async def test_a_message_keeps_the_names_of_things(site: Site) -> None:
    """What is wrong with a body is said in proper words."""
    _, body = await patch(site.browser(), '{"a": NaN}')

    assert body["error"]["message"] == "The body is not valid: NaN is not JSON."


@pytest.mark.gen_test
async def test_values_come_back_as_they_were_sent(site: Site) -> None:
    """Every kind of JSON value survives, at the edges too."""
    sent = {
        "depth": json.loads("[" * 60 + "]" * 60),
        "integer": -(2**63),
        "float": 1.7976931348623157e308,
        "text": "\0 \u2028 </script> 🐘 é e\u0301",
        "empty": [{}, [], "", 0, False],
        "null_inside": {"a": None, "__proto__": [None]},
    }
    browser = site.browser()
    status, body = await browser.json("PATCH", "/session", sent)

    assert (status, body["data"]) == (200, sent)
    assert (await browser.json("GET", "/session"))[1]["data"] == sent


# --- counting ---


@pytest.mark.gen_test
async def test_a_counter_starts_at_nothing_and_counts_both_ways(site: Site) -> None:
    """An absent key is 0, by defaults to 1, and the first count of a visitor makes a session."""
    browser = site.browser()
    steps = [{"key": "n"}, {"key": "n", "by": 41}, {"key": "n", "by": -50}, {"key": "n", "by": 0}]
    answers = [await browser.json("POST", "/session/increment", step) for step in steps]

    assert answers == [(200, {"value": value}) for value in (1, 42, -8, -8)]
    assert (await browser.json("GET", "/session"))[1]["data"] == {"n": -8}


@pytest.mark.gen_test
@pytest.mark.parametrize("stored", ["", "1", [], {}, False, True, 1.0, 2**53 + 1])
async def test_what_is_no_integer_is_not_counted(stored: Any, site: Site) -> None:
    """A value of another kind, empty and false ones included, is a 422 and stays."""
    browser = site.browser()
    await browser.json("PATCH", "/session", {"n": stored})
    status, body = await browser.json("POST", "/session/increment", {"key": "n", "by": 1})

    assert (status, body["error"]["code"]) == (422, "unprocessable")
    assert (await browser.json("GET", "/session"))[1]["data"] == {"n": stored}


@pytest.mark.gen_test
@pytest.mark.parametrize("by", ["1", 1.5, True, None, [1], 2**53 + 1, -(2**53) - 1])
async def test_a_step_must_be_an_integer(by: Any, site: Site) -> None:
    """Anything else is a 422, and no session begins."""
    browser = site.browser()
    status, _ = await browser.json("POST", "/session/increment", {"key": "n", "by": by})

    assert status == 422
    assert browser.cookies == {}


@pytest.mark.gen_test
async def test_a_counter_stays_within_what_every_language_can_count(site: Site) -> None:
    """A sum beyond 2^53 is a 422 and the counter stays."""
    browser = site.browser()
    await browser.json("POST", "/session/increment", {"key": "n", "by": 2**53})
    status, _ = await browser.json("POST", "/session/increment", {"key": "n", "by": 1})

    assert status == 422
    assert (await browser.json("GET", "/session"))[1]["data"] == {"n": 2**53}


# --- several at once ---


@pytest.mark.gen_test
async def test_parallel_writes_of_different_keys_all_survive(site: Site) -> None:
    """Twelve requests that all loaded before any of them wrote lose nothing of each other."""
    browser = await site.signed_in()
    gates = [site.store.gate("apply") for _ in range(12)]
    writing = [
        asyncio.ensure_future(browser.copy().json("PATCH", "/session", {f"k{n}": n})) for n in range(12)
    ]
    for gate in gates:
        await gate.reached()
    for gate in gates:
        gate.open()

    assert [status for status, _ in await asyncio.gather(*writing)] == [200] * 12
    data = (await browser.json("GET", "/session"))[1]["data"]
    assert data == {f"k{n}": n for n in range(12)}  # D3


@pytest.mark.gen_test
async def test_a_write_that_outlives_its_session_is_refused(site: Site) -> None:
    """A PATCH that loaded before the sign-out and writes after it resurrects nothing."""
    browser = await site.signed_in()
    gate = site.store.gate("apply")
    writing = asyncio.ensure_future(browser.copy().json("PATCH", "/session", {"late": True}))
    await gate.reached()
    assert (await browser.json("POST", "/logout"))[0] == 204
    gate.open()
    status, body = await writing

    assert (status, body["error"]["code"]) == (409, "session_changed")  # D1
    assert await site.records() == []


@pytest.mark.gen_test
async def test_a_request_that_loads_after_the_sign_out_is_refused(site: Site) -> None:
    """The same where the sign-out came before the load; the cookie stays, as there may be a newer one."""
    browser = await site.signed_in()
    slow = browser.copy()
    gate = site.store.gate("load")
    writing = asyncio.ensure_future(slow.json("PATCH", "/session", {"late": True}))
    await gate.reached()
    await browser.json("POST", "/logout")
    gate.open()
    status, body = await writing

    assert (status, body["error"]["code"]) == (409, "session_ended")  # D1
    assert slow.cookies != {}
    assert await site.records() == []


@pytest.mark.gen_test
async def test_a_write_under_an_old_id_is_refused_and_the_new_one_keeps_its_own(site: Site) -> None:
    """A PATCH that loaded before a sign-in and writes after it is lost; the one under the new ID is not."""
    browser = await site.signed_in()
    slow = browser.copy()
    gate = site.store.gate("apply")
    writing = asyncio.ensure_future(slow.json("PATCH", "/session", {"late": True}))
    await gate.reached()
    await sign_in(browser)
    await browser.json("PATCH", "/session", {"new": True})
    before = dict(slow.cookies)
    gate.open()
    status, body = await writing

    assert (status, body["error"]["code"]) == (409, "session_changed")  # D2
    assert slow.cookies == before
    assert (await browser.json("GET", "/session"))[1]["data"] == {"new": True}


@pytest.mark.gen_test
async def test_a_double_click_on_sign_in_makes_two_whole_sessions(site: Site) -> None:
    """Two sign-ins at once from one jar both succeed, each with a session that is complete and its own."""
    browser = site.browser()
    await browser.json("PATCH", "/session", {"a": 1})
    gates = [site.store.gate("rotate") for _ in range(2)]
    tabs = [browser.copy(), browser.copy()]
    signing_in = [asyncio.ensure_future(sign_in(tab)) for tab in tabs]
    for gate in gates:
        await gate.reached()
    for gate in gates:
        gate.open()
    answers = await asyncio.gather(*signing_in)

    assert [answer.code for answer in answers] == [303, 303]
    assert [(await tab.json("GET", "/session"))[1]["user"] for tab in tabs] == ["alice"] * 2
    handles = {session_handle(site, tab) for tab in tabs}
    assert len(handles) == 2  # D5
    assert {record.handle for record in await site.records()} == handles
    assert all(record.user == "alice" and record.auth_ms for record in await site.records())


@pytest.mark.gen_test
async def test_no_browser_has_an_id_before_the_store_has_it(site: Site) -> None:
    """The answer to a sign-in waits for the store; where the store fails there is no cookie in it."""
    browser = site.browser()
    gate = site.store.gate("create")
    signing_in = asyncio.ensure_future(sign_in(browser))
    await gate.reached()
    assert (await site.browser().get("/healthz")).code == 200
    was_answered = signing_in.done()
    gate.open()

    assert (await signing_in).code == 303
    assert not was_answered  # D12
    assert {record.handle for record in await site.records()} == {session_handle(site, browser)}


@pytest.mark.gen_test
async def test_two_applications_share_one_store(open_site: OpenSite) -> None:
    """What one process writes or ends, another sees on its next request."""
    one = open_site()
    two = open_site(one.store.inner, clock=one.clock)
    browser = await one.signed_in()
    elsewhere = browser.copy()
    elsewhere.base = two.base
    await browser.json("PATCH", "/session", {"a": 1})
    before = (await elsewhere.json("GET", "/session"))[1]
    await elsewhere.json("PATCH", "/session", {"b": 2})
    both = (await browser.json("GET", "/session"))[1]["data"]
    await elsewhere.json("POST", "/logout")

    assert (before["user"], before["data"], both) == ("alice", {"a": 1}, {"a": 1, "b": 2})  # D11
    assert (await browser.json("GET", "/session"))[1] == NOBODY


@pytest.mark.gen_test
async def test_null_removes_what_cannot_be_read_too(site: Site) -> None:
    """A value that another program spoiled is not left to count towards the limits."""  # G4
    browser = await site.signed_in()
    await browser.json("PATCH", "/session", {"bad": 1, "good": 2})
    [record] = [record async for record in site.store.inner.scan(now_ms=site.sessions.now_ms())]
    await site.store.inner.apply(
        record.credential, Delta({"bad": b"{oops"}), now_ms=record.seen_ms, expires_ms=None
    )

    status, _ = await browser.json("PATCH", "/session", {"bad": None, "none": None})

    [after] = [record async for record in site.store.inner.scan(now_ms=site.sessions.now_ms())]
    assert (status, dict(after.data)) == (200, {"good": b"2"})
