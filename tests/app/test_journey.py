"""One person's way through the whole server, the same on every store."""

from __future__ import annotations

import asyncio
import re
from secrets import token_urlsafe
from typing import Any, NamedTuple

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from stormcellar.stores import open_store
from tests.support.backends import Backend
from tests.support.browser import Browser, token
from tests.support.site import PASSWORD, OpenSite, Site, mask, session_handle, session_secret, sign_in

BACKENDS = ["redis8", "redis6", "redis_cluster", "mongo", "mongo_rs"]
CARRY = frozenset({"cart"})
HANDLE = re.compile(r'(?:"handle": "|/account/sessions/)([A-Za-z0-9_-]{22})')


@pytest.fixture(params=BACKENDS)
def each_backend(request: pytest.FixtureRequest) -> Backend:
    """Each kind of server in turn."""
    found: Backend = request.getfixturevalue(request.param)
    return found


class Step(NamedTuple):
    """One answer as everybody may see it."""

    asked: str
    status: int
    header_names: list[str]
    body: str


class Traveller(Browser):
    """A browser that writes down each answer it gets, and looks for IDs where none may be."""

    def __init__(self, client: AsyncHTTPClient, base: str, site: Site, diary: list[HTTPResponse]) -> None:
        super().__init__(client, base)
        self.site = site
        self.diary = diary

    async def fetch(self, method: str, path: str, **options: Any) -> HTTPResponse:
        """Send one request, and write down the answer."""
        response = await super().fetch(method, path, **options)
        self.diary.append(response)
        if "id" in self.cookies:
            self.require_hidden(response)
        return response

    def require_hidden(self, response: HTTPResponse) -> None:
        """Assert that neither the cookie nor its secret is anywhere but in Set-Cookie."""
        shown = response.body.decode()
        shown += "".join(f"{n}: {v}\n" for n, v in response.headers.get_all() if n != "Set-Cookie")

        assert self.cookies["id"] not in shown  # A9
        assert session_secret(self.site, self) not in shown


async def journey(site: Site) -> list[Step]:
    """Go the whole way, and return every answer, handles replaced by the order in which they appeared."""
    diary: list[HTTPResponse] = []
    first, second, third = (Traveller(site.client, site.base, site, diary) for _ in range(3))
    anonymous_cookie = await arrive(first)
    anonymous = Browser(site.client, site.base)
    anonymous.cookies["id"] = anonymous_cookie

    await sign_in_with_new_id(first, anonymous)
    await write(first)
    await write_in_parallel(first)
    await meet_others(site, first, second, third)
    await prove_who_it_is(first)
    await change_password(first)
    await leave(first)

    assert await site.records() == []
    return as_steps(diary)


async def arrive(browser: Browser) -> str:
    """Write something before signing in; return the cookie that this gives."""
    assert (await browser.get("/")).code == 200
    assert browser.cookies == {}  # A15
    status, body = await browser.json("PATCH", "/session", {"cart": [1, 2], "theme": "dark"})

    assert status == 200
    assert body["data"] == {"cart": [1, 2], "theme": "dark"}
    assert body["user"] is None
    return browser.cookies["id"]


async def sign_in_with_new_id(browser: Browser, anonymous: Browser) -> None:
    """Sign in: a new ID, only what is carried, the old ID dead."""
    response = await sign_in(browser, next="/account/sessions?x=1")

    assert (response.code, response.headers["Location"]) == (303, "/account/sessions?x=1")
    assert browser.cookies["id"] != anonymous.cookies["id"]  # C1
    status, body = await browser.json("GET", "/session")
    assert (status, body["user"], body["data"]) == (200, "alice", {"cart": [1, 2]})  # C3
    status, body = await anonymous.json("GET", "/session")
    assert (status, body["user"], body["data"]) == (200, None, {})
    status, body = await anonymous.json("PATCH", "/session", {"planted": True})
    assert (status, body["error"]["code"]) == (409, "session_ended")  # D2


async def write(browser: Browser) -> None:
    """Replace one key, remove another, refuse a third."""
    status, body = await browser.json("PATCH", "/session", {"cart": None, "a": {"b": ["é", 1.5]}})
    assert (status, body["data"]) == (200, {"a": {"b": ["é", 1.5]}})

    status, body = await browser.json("PATCH", "/session", {"#user": "bob"})
    assert (status, body["error"]["code"]) == (400, "bad_request")  # C4
    assert (await browser.get("/")).code == 200


async def write_in_parallel(browser: Browser) -> None:
    """Lose nothing of what parallel requests write, and count exactly."""
    tabs = [browser.copy() for _ in range(50)]
    patches = [tab.json("PATCH", "/session", {f"k{n}": n}) for n, tab in enumerate(tabs[:20])]
    counts = [tab.json("POST", "/session/increment", {"key": "n", "by": 1}) for tab in tabs]

    answers = await asyncio.gather(*patches, *counts)

    assert [status for status, _ in answers] == [200] * 70
    assert sorted(body["value"] for _, body in answers[20:]) == list(range(1, 51))
    _, body = await browser.json("GET", "/session")
    written = {"a": {"b": ["é", 1.5]}, "n": 50, **{f"k{n}": n for n in range(20)}}
    assert body["data"] == written  # D3


async def meet_others(site: Site, first: Browser, second: Browser, third: Browser) -> None:
    """Sign in elsewhere, see it listed, end one session and then all the others."""
    for each in (second, third):
        site.clock.advance(90)
        await sign_in(each)
    _, body = await first.json("GET", "/account/sessions")
    handles = {item["handle"] for item in body["sessions"]}
    assert handles == {session_handle(site, each) for each in (first, second, third)}
    assert [item["current"] for item in body["sessions"]] == [True, False, False]

    status, _ = await first.json("POST", f"/account/sessions/{session_handle(site, second)}/revoke")
    assert status == 204  # C8
    assert (await second.json("GET", "/session"))[1]["user"] is None
    site.clock.advance(31)
    assert (await second.json("GET", "/session"))[1]["user"] is None
    assert "id" not in second.cookies

    page = await first.get("/account/sessions")
    response = await first.post_form("/account/sessions/revoke-others", token(page))
    assert response.code == 303
    assert (await third.json("GET", "/session"))[1]["user"] is None
    assert (await first.json("GET", "/session"))[1]["user"] == "alice"


async def prove_who_it_is(browser: Browser) -> None:
    """Give the password again, under a new ID."""
    old = browser.copy()
    response = await browser.submit(
        "/account/confirm?next=/account/sessions", "/account/confirm", password=PASSWORD
    )

    assert response.code == 303
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"
    assert (await old.json("GET", "/session"))[1]["user"] is None  # C2


async def change_password(browser: Browser) -> None:
    """Change it, under a new ID; the page that follows says so once."""
    page = "/account/password"
    refused = await browser.submit(page, page, current=PASSWORD, new="password")
    response = await browser.submit(page, page, current=PASSWORD, new="a storm in the cellar")

    assert (refused.code, response.code) == (422, 303)
    shown = [(await browser.get("/")).body.count(b"Your password was changed.") for _ in range(2)]
    assert shown == [1, 0]


async def leave(browser: Browser) -> None:
    """Sign out: the cookie is cleared, and dead wherever it is sent."""
    old = browser.copy()
    response = await browser.submit("/", "/logout")

    assert (response.code, response.headers["Location"]) == (303, "/signed-out")
    assert "id" not in browser.cookies
    assert (await browser.get("/signed-out")).code == 200
    assert [await answer(old, *request) for request in EVERYWHERE] == EVERYWHERE_DEAD  # C5


EVERYWHERE: list[tuple[str, str, Any]] = [
    ("GET", "/session", None),
    ("PATCH", "/session", {"a": 1}),
    ("POST", "/session/increment", {"key": "n", "by": 1}),
    ("GET", "/account/sessions", None),
    ("POST", "/account/sessions/revoke-others", None),
    ("POST", "/account/sessions/AAAAAAAAAAAAAAAAAAAAAA/revoke", None),
    ("POST", "/logout", None),
]
EVERYWHERE_DEAD = [(200, None), (409, None), (409, None), (401, None), (401, None), (401, None), (204, None)]


async def answer(old: Browser, method: str, path: str, value: Any) -> tuple[int, Any]:
    """Return the status for a cookie that stays in its browser, and the user that the answer names."""
    status, body = await old.copy().json(method, path, value)
    return status, (body or {}).get("user")


def as_steps(diary: list[HTTPResponse]) -> list[Step]:
    """Return the answers with everything random in them replaced."""
    names: dict[str, str] = {}

    def told(text: str, response: HTTPResponse) -> str:
        for handle in HANDLE.findall(response.body.decode()):
            names.setdefault(handle, f"HANDLE{len(names) + 1}")
        for handle, name in names.items():
            text = text.replace(handle, name)
        return mask(text)

    return [
        Step(
            told(f"{each.request.method} {each.request.url.partition('//')[2].partition('/')[2]}", each),
            each.code,
            sorted(name for name, _ in each.headers.get_all()),
            told(each.body.decode(), each),
        )
        for each in diary
    ]


@pytest.mark.gen_test
async def test_the_journey_over_memory(open_site: OpenSite) -> None:
    """Everything that a person does works, and is told as it should be, on the memory store."""
    steps = await journey(open_site(carry=CARRY))

    assert {step.status for step in steps} == {200, 204, 303, 400, 422}


@pytest.mark.gen_test(timeout=60)
async def test_no_store_shows_through(each_backend: Backend, open_site: OpenSite) -> None:
    """Every store gives the journey the same status, header names and body, byte for byte."""
    store = open_store(each_backend.url, prefix=f"test-{token_urlsafe(6)}", timeout_s=10)

    steps = await journey(open_site(store, carry=CARRY))

    assert steps == await journey(open_site(carry=CARRY))  # G17
