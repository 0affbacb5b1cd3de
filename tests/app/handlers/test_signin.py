"""Sign-in over HTTP: what is taken, what is refused, and that every refusal looks alike."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from typing import Any, Literal
from urllib.parse import quote, urlencode

import argon2
import pytest
from tornado.httpclient import HTTPResponse

from stormcellar.accounts.directory import Account, MemoryAccounts
from stormcellar.accounts.passwords import PasswordChecker
from stormcellar.accounts.throttle import Rules
from stormcellar.app.edge import Edge
from tests.support.browser import Browser, token
from tests.support.site import (
    ACCOUNTS,
    CHEAP,
    JSON,
    PASSWORD,
    OpenSite,
    Site,
    seen,
    sign_in,
)

FORM = "application/x-www-form-urlencoded"

WRONG = {
    "wrong password": ("alice", "wrong"),
    "no password": ("alice", ""),
    "over-long password": ("alice", "x" * 1025),
    "unknown user": ("mallory", PASSWORD),
    "disabled user": ("dora", PASSWORD),
    "malformed name": ("alice smith!", PASSWORD),
    "name in another alphabet": ("аlice", PASSWORD),
    "over-long name": ("a" * 100_000, PASSWORD),
    "no name": ("", PASSWORD),
    "name with a NUL": ("alice\0", PASSWORD),
}


async def sign_in_json(browser: Browser, body: str | bytes) -> HTTPResponse:
    """Send a body to sign in with JSON."""
    headers = {"Content-Type": JSON, "Accept": JSON}
    return await browser.fetch("POST", "/login", body=body, headers=headers)


async def sign_in_form(browser: Browser, body: str) -> HTTPResponse:
    """Send a form's body as it is, with a token that is right."""
    xsrf = token(await browser.get("/login"))
    return await browser.fetch("POST", "/login", body=f"_xsrf={xsrf}&{body}", headers={"Content-Type": FORM})


# --- every refusal alike ---


@pytest.mark.gen_test
async def test_every_wrong_credential_gets_the_same_page(site: Site) -> None:
    """But for the name in its field, nothing tells which part was wrong, or whether a user exists."""
    answers = []
    for name, password in WRONG.values():
        status, headers, page = seen(await sign_in(site.browser(), name, password=password))
        alike = [header for header in headers if header[0] != "Content-Length"]
        if 0 < len(name) <= 256:
            assert f' value="{name}"' in page
            answers.append((status, alike, page.replace(f' value="{name}"', ' value="alice"')))
        assert (status, alike) == (401, answers[0][1])

    assert all(answer == answers[0] for answer in answers)  # E1


@pytest.mark.gen_test
async def test_every_wrong_credential_gets_the_same_json(site: Site) -> None:
    """The same in JSON, where there are no cookies at all."""
    bodies = [json.dumps({"username": name, "password": pw}) for name, pw in WRONG.values()]

    answers = [seen(await sign_in_json(site.browser(), body)) for body in bodies]

    assert all(answer == answers[0] for answer in answers)  # E1
    status, headers, body = answers[0]
    assert (status, json.loads(body)["error"]["code"]) == (401, "bad_credentials")
    assert "Set-Cookie" not in dict(headers)


@pytest.mark.gen_test
async def test_an_account_disabled_during_sign_in_is_refused_like_any_other(site: Site) -> None:
    """Whoever is locked out while the password is checked sees the page of a wrong password."""
    wrong = seen(await sign_in(site.browser(), password="wrong"))
    browser, gate = site.browser(), site.store.gate("create")
    signing_in = asyncio.ensure_future(sign_in(browser))
    await gate.reached()
    site.context.accounts._accounts["alice"] = ACCOUNTS["dora"]  # type: ignore[attr-defined]
    gate.open()
    answer = seen(await signing_in)

    assert (answer[0], answer[2]) == (wrong[0], wrong[2])
    assert "id" not in browser.cookies
    assert await site.records() == []


@pytest.mark.gen_test
async def test_a_refused_sign_in_keeps_the_name_and_never_the_password(site: Site) -> None:
    """The name is in its field again, as text; the password is nowhere, and JSON repeats neither."""
    page = await sign_in(site.browser(), 'typed-"><b>7', password="typed-password-7")
    body = json.dumps({"username": "typed-name-7", "password": "typed-password-7"})
    answer = await sign_in_json(site.browser(), body)

    assert b' value="typed-&quot;&gt;&lt;b&gt;7"' in page.body  # F9
    assert b"typed-password" not in page.body + answer.body  # E20
    assert b"typed-" not in answer.body
    assert "typed-" not in str(page.headers) + str(answer.headers)


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["", "x" * 257])
async def test_a_name_that_nobody_can_have_leaves_an_empty_field(name: str, site: Site) -> None:
    """The cursor is where the person types next: in the field of the name, else in that of the password."""
    empty = (await sign_in(site.browser(), name, password="wrong")).body.decode()
    named = (await sign_in(site.browser(), "alice", password="wrong")).body.decode()

    focused = [re.findall(r'<input id="(\w+)"[^>]* autofocus', page) for page in (empty, named)]
    assert focused == [["username"], ["password"]]
    assert 'id="username" name="username" value=""' in empty


@pytest.mark.gen_test
async def test_a_name_is_trimmed_and_a_password_is_not(site: Site) -> None:
    """A space that a telephone adds to the name changes nothing; one at the password is wrong."""
    assert (await sign_in(site.browser(), " Alice ")).code == 303
    assert (await sign_in(site.browser(), "alice", password=PASSWORD + " ")).code == 401


@pytest.mark.gen_test
async def test_a_refused_sign_in_keeps_the_session_as_it_was(site: Site) -> None:
    """A wrong password over a live session neither signs out nor rotates."""
    browser = await site.signed_in()
    before = browser.cookies["id"]
    response = await sign_in(browser, password="wrong")

    assert response.code == 401
    assert browser.cookies["id"] == before
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


@pytest.mark.gen_test
async def test_too_many_tries_are_told_when_to_come_back(open_site: OpenSite) -> None:
    """The form says it in words, keeps where the way was to lead, and the header says it to machines."""
    site = open_site(rules=Rules(attempts=2))
    browser = site.browser()
    for _ in range(2):
        await sign_in(browser, password="wrong")
    page = await sign_in(browser, next="/account/sessions")
    status, body = await browser.json("POST", "/login", {"username": "alice", "password": PASSWORD})

    assert (page.code, page.headers["Retry-After"]) == (429, "10")  # E9
    assert b'role="alert" id="error">Too many attempts. Try again in 10 seconds.</p>' in page.body
    assert b'name="next" value="/account/sessions"' in page.body
    assert (status, body["error"]["code"]) == (429, "throttled")
    assert browser.cookies.keys() == {"id-form"}


@pytest.mark.gen_test
async def test_a_throttled_try_does_not_tell_who_exists(open_site: OpenSite) -> None:
    """The refusal is the same for a user, a disabled one and nobody."""
    site = open_site(rules=Rules(attempts=1))
    answers = []
    for name in ("alice", "dora", "mallory"):
        await sign_in(site.browser(), name, password="wrong")
        status, headers, page = seen(await sign_in(site.browser(), name))
        alike = [header for header in headers if header[0] != "Content-Length"]
        answers.append((status, alike, page.replace(f' value="{name}"', ' value="typed"')))

    assert answers[0][0] == 429
    assert all(answer == answers[0] for answer in answers)  # E1


# --- signing out ---


@pytest.mark.gen_test
async def test_signing_out_clears_our_cookies_by_name(open_site: OpenSite) -> None:
    """The session cookie and the nonce, not the device; those of sibling subdomains are not ours to clear."""
    for site in (open_site(edge=Edge(is_secure=True)), open_site()):
        browser = site.browser()
        await sign_in(browser)
        browser.cookies[site.sessions.cookies.nonce_name] = "A" * 43
        response = await browser.submit("/", "/logout")

        assert "Clear-Site-Data" not in response.headers  # C7
        assert response.headers["Location"] == "/signed-out"
        assert browser.cookies.keys() == {site.sessions.cookies.device_name}
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.gen_test
async def test_the_signed_out_page_alone_clears_the_browser(site: Site) -> None:
    """By a style sheet for printing, for which no browser waits before it shows the page."""
    visitor, user = site.browser(), await site.signed_in()
    link = b'<link rel="stylesheet" href="/forget.css" media="print">'
    pages = [await visitor.get(path) for path in ("/signed-out", "/", "/login")]
    others = [await user.get(path) for path in ("/", "/login", "/account/sessions", "/account/password")]

    assert [link in page.body for page in pages] == [True, False, False]  # C7
    assert not any(b"forget.css" in page.body for page in (*pages[1:], *others))
    assert not any("Clear-Site-Data" in page.headers for page in (*pages, *others))


@pytest.mark.gen_test
@pytest.mark.parametrize("asked_by", ["same-origin", "same-site", "cross-site", "none", None])
async def test_nobody_else_clears_the_browser(asked_by: str | None, site: Site) -> None:
    """A page of another site, a sibling subdomain and a typed address get the style sheet without effect."""
    headers = {"Sec-Fetch-Site": asked_by} if asked_by else {}
    response = await site.browser().fetch("GET", "/forget.css", headers=headers)

    expected = '"cache", "storage"' if asked_by == "same-origin" else None
    assert (response.code, response.headers.get("Clear-Site-Data")) == (200, expected)  # C7
    assert response.headers["Content-Type"] == "text/css; charset=UTF-8"


@pytest.mark.gen_test
async def test_the_page_after_signing_out_is_for_who_is_signed_out(site: Site) -> None:
    """It names nobody, and who is signed in all the same is not told otherwise."""
    visitor = await site.browser().get("/signed-out")
    user = await (await site.signed_in()).get("/signed-out")

    assert (visitor.code, b"You are signed out" in visitor.body) == (200, True)
    assert "Set-Cookie" not in visitor.headers
    assert (user.code, user.headers["Location"]) == (303, "/")


# --- what is taken ---


@pytest.mark.gen_test
async def test_signing_in_answers_with_see_other_and_no_store(site: Site) -> None:
    """The browser is sent on with a GET, and nobody may keep the answer with its cookie."""
    response = await sign_in(site.browser())

    assert (response.code, response.headers["Location"]) == (303, "/")  # E15
    assert response.headers["Cache-Control"] == "no-store"
    assert "Cookie" in response.headers["Vary"]


@pytest.mark.gen_test
async def test_signing_in_with_json_answers_with_the_user(site: Site) -> None:
    """A script gets JSON and the same cookie."""
    browser = site.browser()
    status, body = await browser.json("POST", "/login", {"username": "ALICE", "password": PASSWORD})

    assert (status, body) == (200, {"user": "alice"})
    assert (await browser.json("GET", "/session"))[1]["user"] == "alice"


@pytest.mark.gen_test
async def test_the_cookie_of_sign_in_has_every_attribute(site: Site) -> None:
    """HttpOnly, Path=/, SameSite=Lax, no Domain, nothing that outlives the browser."""
    response = await sign_in(site.browser())

    line = next(line for line in response.headers.get_list("Set-Cookie") if line.startswith("id="))
    assert line.partition("; ")[2] == "HttpOnly; Path=/; SameSite=Lax"


@pytest.mark.gen_test
async def test_the_sign_in_page_names_who_is_signed_in_and_changes_nothing(site: Site) -> None:
    """A signed-in user who opens the form is told so, and stays signed in under the same ID."""
    browser = await site.signed_in()
    before = dict(browser.cookies)
    page = await browser.get("/login")

    assert page.code == 200
    assert b"You are signed in as <strong>alice</strong>" in page.body
    assert browser.cookies == before  # E15


@pytest.mark.gen_test
async def test_signing_in_again_changes_the_id_and_keeps_the_data(site: Site) -> None:
    """The same user's session goes on under a new ID; the old one is dead."""
    browser = await site.signed_in()
    await browser.json("PATCH", "/session", {"draft": "x"})
    old = browser.copy()
    await sign_in(browser)

    assert browser.cookies["id"] != old.cookies["id"]  # C2
    assert (await browser.json("GET", "/session"))[1]["data"] == {"draft": "x"}
    assert (await old.json("GET", "/session"))[1] == (await site.browser().json("GET", "/session"))[1]


@pytest.mark.gen_test
async def test_signing_in_as_another_user_carries_nothing_over(open_site: OpenSite) -> None:
    """No data crosses users, not even a key that is carried from an anonymous session."""
    site = open_site(carry=frozenset({"cart"}))
    browser = await site.signed_in()
    await browser.json("PATCH", "/session", {"cart": [1], "draft": "x"})
    await sign_in(browser, "bob")

    _, body = await browser.json("GET", "/session")
    assert (body["user"], body["data"]) == ("bob", {})  # C2
    assert await site.sessions.of_user("alice") == []


@pytest.mark.gen_test
async def test_only_carried_keys_survive_sign_in(open_site: OpenSite) -> None:
    """What was planted before sign-in, while the password is checked too, is gone after it."""
    site = open_site(carry=frozenset({"cart"}))
    browser = site.browser()
    await browser.json("PATCH", "/session", {"cart": [1], "is_admin": True})
    gate = site.store.gate("rotate")
    signing_in = asyncio.ensure_future(sign_in(browser))
    await gate.reached()
    await browser.copy().json("PATCH", "/session", {"planted": True})
    gate.open()
    await signing_in

    assert (await browser.json("GET", "/session"))[1]["data"] == {"cart": [1]}  # C3


PASSWORDS = ["  spaces  ", "tab\tand\x01control", "ünï©ødé 🐘", "x" * 1024, "a&b=c;d+e%41", "nul\0byte"]


@pytest.mark.gen_test
@pytest.mark.parametrize("password", PASSWORDS)
async def test_a_password_is_taken_to_the_byte(password: str, open_site: OpenSite) -> None:
    """Spaces, control and other characters count, in a form and in JSON alike; a prefix is not enough."""
    checker = PasswordChecker(argon2_hasher=CHEAP)
    accounts = MemoryAccounts({"alice": Account(CHEAP.hash(password), 0)}, checker=checker)
    site = open_site(accounts=accounts, checker=checker)

    assert (await sign_in(site.browser(), password=password)).code == 303  # E5
    right = json.dumps({"username": "alice", "password": password})
    assert (await sign_in_json(site.browser(), right)).code == 200
    for wrong in (password.strip() + " ", password[:-1], password.replace("\x01", " ").replace("\0", "")):
        assert (await sign_in(site.browser(), password=wrong)).code == (303 if wrong == password else 401)


# --- what is malformed ---

VALUES: list[Any] = [None, 1, True, ["alice"], {"$ne": ""}, {"$gt": "", "a": 1}, 1.5]


@pytest.mark.gen_test
@pytest.mark.parametrize("value", VALUES)
async def test_credentials_must_be_text(value: Any, site: Site) -> None:
    """Another type of JSON value is malformed, for the name and for the password; no account is asked."""
    bodies: list[dict[str, Any]] = [
        {"username": value, "password": PASSWORD},
        {"username": "alice", "password": value},
    ]
    if value is not None:
        bodies.append({"username": "alice", "password": PASSWORD, "next": value})

    for body in bodies:
        response = await sign_in_json(site.browser(), json.dumps(body))
        assert response.code == 400  # E6
        assert "Set-Cookie" not in response.headers


MALFORMED_FORMS = {
    "two names": f"username=alice&username=bob&password={quote(PASSWORD)}",
    "two passwords": f"username=alice&password={quote(PASSWORD)}&password=x",
    "two targets": f"username=alice&password={quote(PASSWORD)}&next=/a&next=/b",
    "no password": "username=alice",
    "no name": f"password={quote(PASSWORD)}",
    "nothing": "",
    "not UTF-8": f"username=%ff%fe&password={quote(PASSWORD)}",
    "password not UTF-8": "username=alice&password=%c3%28",
}


@pytest.mark.gen_test
@pytest.mark.parametrize("body", MALFORMED_FORMS.values(), ids=MALFORMED_FORMS)
async def test_a_malformed_form_is_refused(body: str, site: Site) -> None:
    """A field that is missing, doubled or undecodable is a 400, and signs nobody in."""
    browser = site.browser()
    response = await sign_in_form(browser, body)

    assert response.code == 400  # E7
    assert "id" not in browser.cookies


GOOD = f'"username": "alice", "password": "{PASSWORD}"'
MALFORMED_JSON = {
    "two names": f'{{"username": "bob", {GOOD}}}',
    "two passwords": f'{{{GOOD}, "password": "x"}}',
    "two other keys": f'{{{GOOD}, "x": 1, "x": 2}}',
    "duplicates further in": f'{{{GOOD}, "x": [{{"y": 1, "y": 2}}]}}',
    "empty": "",
    "a list": f"[{{{GOOD}}}]",
    "a string": '"alice"',
    "cut short": f"{{{GOOD}",
    "something after it": f"{{{GOOD}}} {{}}",
    "NaN": f'{{{GOOD}, "x": NaN}}',
    "a lone surrogate": '{"username": "\\ud800", "password": "x"}',
    "a form": urlencode({"username": "alice", "password": PASSWORD}),
}


@pytest.mark.gen_test
@pytest.mark.parametrize("body", MALFORMED_JSON.values(), ids=MALFORMED_JSON)
async def test_malformed_json_is_refused(body: str, site: Site) -> None:
    """What is not one JSON object, or names a key twice, is a 400, and signs nobody in."""
    browser = site.browser()
    response = await sign_in_json(browser, body)

    assert response.code == 400  # E7
    assert json.loads(response.body)["error"]["code"] == "bad_request"
    assert browser.cookies == {}


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["username", "password"])
async def test_credentials_in_the_url_are_refused(name: str, site: Site) -> None:
    """What stands in a URL stands in logs and histories, so it is refused even if the body is complete."""
    browser = site.browser()
    body = json.dumps({"username": "alice", "password": PASSWORD})
    headers = {"Content-Type": JSON, "Accept": JSON}
    response = await browser.fetch("POST", f"/login?{name}=alice", body=body, headers=headers)

    assert response.code == 400  # E7, A8
    assert browser.cookies == {}


# --- where to go from here ---


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/%2f/evil.example",
        "/login",
        "/logout",
        "/signed-out",
        "/account/confirm?next=/",
        "/idle.css?left=1",
        "x",
    ],
)
async def test_sign_in_never_leads_elsewhere(target: str, site: Site) -> None:
    """A target on another site, or one that makes no sense, becomes the home page at every step."""
    browser = site.browser()
    page = await browser.get("/login?" + urlencode({"next": target}))
    response = await sign_in(browser, next=target)

    assert b'name="next" value="/"' in page.body  # E13
    assert response.headers["Location"] == "/"  # E14


@pytest.mark.gen_test
async def test_a_page_that_needs_a_user_leads_back_to_itself(site: Site) -> None:
    """From the page to the form, and from the form to the page, query and all."""
    browser = site.browser()
    away = await browser.get("/account/sessions?page=2&sort=a%26b")
    form = await browser.get(away.headers["Location"])
    response = await sign_in(browser, next="/account/sessions?page=2&sort=a%26b")

    assert away.code == 303
    assert b'value="/account/sessions?page=2&amp;sort=a%26b"' in form.body
    assert response.headers["Location"] == "/account/sessions?page=2&sort=a%26b"


# --- hashing ---


class HeldHasher(argon2.PasswordHasher):
    """A hasher at which a verification waits until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.calls = 0
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        """Wait, then verify."""
        self.calls += 1
        self.reached.set()
        assert self.go_on.wait(20)
        return super().verify(hash, password)


@pytest.mark.gen_test
async def test_the_server_answers_while_a_password_is_hashed(open_site: OpenSite) -> None:
    """Hashing never holds up the event loop."""
    hasher = HeldHasher()
    site = open_site(checker=PasswordChecker(workers=1, queue=1, argon2_hasher=hasher))
    signing_in = asyncio.ensure_future(sign_in(site.browser()))
    try:
        assert await asyncio.to_thread(hasher.reached.wait, 10)
        health = await site.browser().get("/healthz")
        is_signed_in = signing_in.done()
    finally:
        hasher.go_on.set()

    assert (health.code, is_signed_in) == (200, False)  # E3
    assert (await signing_in).code == 303


@pytest.mark.gen_test
async def test_too_many_sign_ins_at_once_are_told_to_come_back(open_site: OpenSite) -> None:
    """Beyond the queue the answer is 503 with Retry-After, before anything is hashed, page and JSON."""
    hasher = HeldHasher()
    site = open_site(checker=PasswordChecker(workers=1, queue=0, argon2_hasher=hasher))
    first = asyncio.ensure_future(sign_in(site.browser()))
    try:
        assert await asyncio.to_thread(hasher.reached.wait, 10)
        page = await sign_in(site.browser())
        body = json.dumps({"username": "nobody", "password": "x"})
        answer = await sign_in_json(site.browser(), body)
        hashed = hasher.calls
    finally:
        hasher.go_on.set()

    assert [page.code, answer.code, hashed] == [503, 503, 1]  # E3
    assert page.headers["Retry-After"] == answer.headers["Retry-After"] == "2"
    assert json.loads(answer.body)["error"]["code"] == "busy"
    assert (await first).code == 303


@pytest.mark.parametrize("missing", ["username", "password"])
@pytest.mark.gen_test
async def test_an_optional_field_is_not_taken_for_one_that_is_needed(missing: str, site: Site) -> None:  # E7
    """As many fields as are needed, but not those, are refused in JSON and in a form."""
    fields = {"username": "alice", "password": PASSWORD, "next": "/"}
    del fields[missing]
    in_json = await sign_in_json(site.browser(), json.dumps(fields))
    in_form = await sign_in_form(site.browser(), urlencode(fields))

    assert (in_json.code, in_form.code) == (400, 400)
