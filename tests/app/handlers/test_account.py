"""Home and "your sessions": what they show, whom they obey, and that nothing in them is live HTML."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import tornado

from stormcellar.stores import Credential, Handle, Verifier
from tests.support.browser import Browser, token
from tests.support.site import JSON, PASSWORD, OpenSite, Site, seen, session_handle, sign_in

RANDOM_HANDLE = "AAAAAAAAAAAAAAAAAAAAAA"
SCRIPT = "<script>alert(1)</script>"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"


class Everybody:
    """An account directory in which everybody may sign in, under a name that is no credit to them."""

    def __init__(self, user: str) -> None:
        self.user = user

    async def verify(self, name: str, password: str) -> str | None:
        """Let them in."""
        return self.user

    def valid_after(self, user: str) -> int | None:
        """Let them stay."""
        return 0


async def revoke(browser: Browser, handle: str, **headers: str) -> Any:
    """Send the form of one session, with a token that is right."""
    page = await browser.get("/")
    xsrf = token(page)
    return await browser.fetch(
        "POST",
        f"/account/sessions/{handle}/revoke",
        body=f"_xsrf={xsrf}",
        headers={"Content-Type": "application/x-www-form-urlencoded", **headers},
    )


# --- the list ---


@pytest.mark.gen_test
async def test_the_list_tells_where_a_user_is_signed_in(site: Site) -> None:
    """Each session with its times, address and agent, this one first; nobody else's, and no secret."""  # I10
    other = await site.signed_in()
    await site.signed_in("bob")
    site.clock.advance(600)
    browser = await site.signed_in()
    site.clock.advance(30)
    await other.json("PATCH", "/session", {"a": 1})
    status, body = await browser.json("GET", "/account/sessions")

    common = {"address": "127.0.0.1", "agent": f"Tornado/{tornado.version}"}
    assert status == 200
    assert body["sessions"] == [
        {
            "handle": session_handle(site, browser),
            "created_at": "2030-03-17T17:56:40Z",
            "authenticated_at": "2030-03-17T17:56:40Z",
            "seen_at": "2030-03-17T17:57:10Z",
            "current": True,
            **common,
        },
        {
            "handle": session_handle(site, other),
            "created_at": "2030-03-17T17:46:40Z",
            "authenticated_at": "2030-03-17T17:46:40Z",
            "seen_at": "2030-03-17T17:57:10Z",
            "current": False,
            **common,
        },
    ]


@pytest.mark.gen_test
async def test_the_list_begins_with_the_session_it_is_read_in(site: Site) -> None:
    """Then come the others, the latest sign-in first."""
    browsers = []
    for _ in range(4):
        browsers.append(await site.signed_in())
        site.clock.advance(1)
    handles = [session_handle(site, each) for each in browsers]
    _, body = await browsers[1].json("GET", "/account/sessions")

    assert [item["handle"] for item in body["sessions"]] == [handles[n] for n in (1, 3, 2, 0)]


@pytest.mark.gen_test
async def test_the_page_speaks_of_browsers_and_times_as_people_do(site: Site) -> None:
    """The list names the browser and how long ago, and marks the session it is opened in."""
    other = site.browser()
    page = await other.get("/login")
    await other.fetch(
        "POST",
        "/login",
        body=f"_xsrf={token(page)}&username=alice&password=correct+horse+battery+staple",
        headers={"Content-Type": "application/x-www-form-urlencoded", "User-Agent": FIREFOX},
    )
    browser = await site.signed_in()
    site.clock.advance(300)
    text = (await browser.get("/account/sessions")).body.decode()

    assert text.count("this session") == 1
    assert "Firefox on Linux</strong>" in text
    assert "Signed in <time" in text and "Active <time" in text
    assert text.count("5 minutes ago</time>") == 3  # I10
    assert text.count(">now</time>") == 1
    assert text.index("this session") < text.index("Firefox on Linux</strong>")


@pytest.mark.gen_test
async def test_visitors_are_sent_to_sign_in(site: Site) -> None:
    """A page leads to the form and back, JSON is a 401, and a form that needs a user leads to its page."""
    browser = site.browser()
    xsrf = token(await browser.get("/login"))
    page = await browser.get("/account/sessions")
    form = await browser.post_form("/account/sessions/revoke-others", xsrf)
    status, body = await browser.json("GET", "/account/sessions")
    posted = await browser.json("POST", "/account/sessions/revoke-others")

    assert (page.code, page.headers["Location"]) == (303, "/login?next=%2Faccount%2Fsessions")
    assert (form.code, form.headers["Location"]) == (303, "/login?next=%2Faccount%2Fsessions")
    assert (status, body["error"]["code"]) == (401, "unauthenticated")
    assert posted[0] == 401


# --- ending sessions ---


@pytest.mark.gen_test
async def test_a_session_can_be_ended_from_another(site: Site) -> None:
    """It is over on its very next request, and the one that ended it goes on."""
    browser, other = await site.signed_in(), await site.signed_in()
    response = await revoke(browser, session_handle(site, other))

    assert (response.code, response.headers["Location"]) == (303, "/account/sessions")
    assert (await other.json("GET", "/session"))[1]["user"] is None  # C8
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


@pytest.mark.gen_test
async def test_the_page_says_what_was_ended_once(site: Site) -> None:
    """After one, and after all the others; the second look shows nothing of it."""
    browser, other = await site.signed_in(), await site.signed_in()
    await revoke(browser, session_handle(site, other))
    one = [(await browser.get("/account/sessions")).body for _ in range(2)]
    await site.signed_in()
    await browser.submit("/account/sessions", "/account/sessions/revoke-others")
    all_others = [(await browser.get("/account/sessions")).body for _ in range(2)]

    assert [page.count(b'role="status">The session was signed out.') for page in one] == [1, 0]
    assert [page.count(b'role="status">All other sessions were signed out.') for page in all_others] == [1, 0]


@pytest.mark.gen_test
async def test_all_other_sessions_can_be_ended_at_once(site: Site) -> None:
    """Only those of the same user, and not this one."""
    browser = await site.signed_in()
    others = [await site.signed_in() for _ in range(3)]
    stranger = await site.signed_in("bob")
    status, _ = await browser.json("POST", "/account/sessions/revoke-others")

    users = [(await each.json("GET", "/session"))[1]["user"] for each in (browser, *others, stranger)]
    assert status == 204
    assert users == ["alice", None, None, None, "bob"]  # C8


@pytest.mark.gen_test
async def test_ending_this_session_is_signing_out(site: Site) -> None:
    """The record goes, the cookie goes, and nobody is asked anything, however long ago they signed in."""
    browser = await site.signed_in()
    site.clock.advance(900)
    response = await revoke(browser, session_handle(site, browser))

    assert (response.code, response.headers["Location"]) == (303, "/signed-out")
    assert "id" not in browser.cookies
    assert await site.records() == []


@pytest.mark.gen_test
@pytest.mark.parametrize("accept", ["text/html", JSON])
async def test_another_users_session_is_as_unknown_as_a_random_one(accept: str, site: Site) -> None:
    """Status, headers and body are the same, and the session goes on, an anonymous one too."""
    browser, bob, visitor = await site.signed_in(), await site.signed_in("bob"), site.browser()
    await visitor.json("PATCH", "/session", {"a": 1})
    handles = [RANDOM_HANDLE, session_handle(site, bob), session_handle(site, visitor), "A" * 64]
    answers = [seen(await revoke(browser, handle, Accept=accept)) for handle in handles]

    assert answers[0][0] == 404
    assert all(answer == answers[0] for answer in answers)  # C9
    assert (await bob.json("GET", "/session"))[1]["user"] == "bob"
    assert (await visitor.json("GET", "/session"))[1]["data"] == {"a": 1}


@pytest.mark.gen_test
async def test_a_record_with_a_strange_client_is_listed_all_the_same(site: Site) -> None:
    """What another program wrote there is not shown, and does not break the page for the others."""
    browser = await site.signed_in()
    (record,) = await site.records()
    for number, client in enumerate((b"", b"\xff", b"[1]", b'{"address": {}, "agent": 1}', b"{")):
        credential = Credential(Handle(str(number) * 22), Verifier("A" * 43))
        await site.store.create(
            replace(record, handle=credential.handle, verifier=credential.verifier, client=client)
        )
    page = await browser.get("/account/sessions")
    _, body = await browser.json("GET", "/account/sessions")

    assert page.code == 200
    assert len(body["sessions"]) == 6  # G4
    assert all(isinstance(item["agent"], str) for item in body["sessions"])


# --- hostile content ---


@pytest.mark.gen_test
async def test_nothing_that_people_choose_is_live_in_a_page(open_site: OpenSite) -> None:
    """A user's name, session data, a browser's name and a target of sign-in are text wherever they show."""
    site = open_site(accounts=Everybody(f"bob{SCRIPT}"))
    browser = site.browser()
    headers = {"User-Agent": SCRIPT, "Content-Type": JSON}
    body = json.dumps({"username": SCRIPT, "password": "x", "next": f"/{SCRIPT}"})
    await browser.fetch("POST", "/login", body=body, headers=headers)
    await browser.json("PATCH", "/session", {"a": SCRIPT, "b": {f"</code>{SCRIPT}": [f"\"{SCRIPT}'"]}})
    pages = [
        await browser.get("/"),
        await browser.get("/account/sessions"),
        await browser.get(f'/login?next=/a"{SCRIPT}'.replace(" ", "")),
        await browser.get(f"/{SCRIPT}"),
        await browser.post_form("/logout", SCRIPT),
    ]

    assert [page.code for page in pages] == [200, 200, 200, 404, 403]
    scripts = [re.findall(b"<script[^>]*", page.body) for page in pages]
    assert [len(found) for found in scripts] == [1, 1, 0, 1, 1]  # F9
    assert all(each.startswith(b'<script src="/static/live.js?v=') for found in scripts for each in found)
    assert all(b'/a"' not in page.body for page in pages)
    assert b"bob&lt;script&gt;" in pages[0].body
    assert b"&lt;script&gt;alert(1)&lt;/script&gt;" in pages[1].body


@pytest.mark.gen_test
async def test_json_is_never_taken_for_a_page(site: Site) -> None:
    """JSON has its own type, is not sniffed, and cannot close a script element."""
    browser = site.browser()
    await browser.json("PATCH", "/session", {"a": SCRIPT})
    for path in ("/session", "/"):
        response = await browser.get(path, Accept=JSON)

        assert response.headers["Content-Type"] == "application/json; charset=UTF-8"  # F9
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert b"</script" not in response.body


@pytest.mark.gen_test
async def test_a_user_of_many_words_is_only_themselves(open_site: OpenSite) -> None:
    """Names that mean something to a store or to HTML find their own sessions and no other's."""
    site = open_site()
    for user in ("*", "a:b", "$gt", "{x}", "é", "bob\0"):
        other = open_site(site.store.inner, clock=site.clock, accounts=Everybody(user))
        browser = other.browser()
        await sign_in(browser)
        _, body = await browser.json("GET", "/account/sessions")

        assert [item["current"] for item in body["sessions"]] == [True]


@pytest.mark.gen_test
async def test_another_browser_name_ends_nothing(site: Site) -> None:  # I7
    """Agents and addresses change under honest people; they are shown, and nobody is signed out over them."""
    browser = await site.signed_in()
    answer = await browser.get("/session", User_Agent="another after an update")

    assert b'"alice"' in answer.body


def in_memory(held: object) -> str:
    """Return as text what an object of the memory store holds, and what those hold that it holds."""
    if type(held).__module__.startswith("stormcellar.stores."):
        return "".join(map(in_memory, vars(held).values())) if hasattr(held, "__dict__") else repr(held)
    return repr(held)


@pytest.mark.gen_test
async def test_what_is_known_of_a_client_goes_with_its_session(site: Site) -> None:  # I9
    """After the sign-out neither agent nor address is anywhere in the store."""
    browser = await site.signed_in()
    body = json.dumps({"username": "alice", "password": PASSWORD})
    agent = {"User-Agent": "a browser of one person", "Content-Type": JSON}
    await browser.fetch("POST", "/login", body=body, headers=agent)
    held = in_memory(site.store.inner)
    await browser.fetch("POST", "/logout", body=b"{}", headers={"Content-Type": JSON})
    left = in_memory(site.store.inner)

    assert "a browser of one person" in held
    assert "a browser of one person" not in left
    assert "127.0.0.1" not in left


@pytest.mark.gen_test
async def test_looking_at_the_head_of_a_page_takes_no_message(site: Site) -> None:  # F4
    """Who sees nothing of it leaves it for the one who does."""
    browser, other = await site.signed_in(), await site.signed_in()
    await revoke(browser, session_handle(site, other))
    await browser.fetch("HEAD", "/account/sessions")

    assert b"The session was signed out." in (await browser.get("/account/sessions")).body
