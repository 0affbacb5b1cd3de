"""What every answer has in common, and what is answered where nothing is offered."""

from __future__ import annotations

import ipaddress
import json
from urllib.parse import urlencode

import pytest

from stormcellar.errors import SessionEnded
from stormcellar.stores import StoreUnavailable
from tests.support.browser import token
from tests.support.site import JSON, PASSWORD, OpenSite, Site, sign_in

FORM = "application/x-www-form-urlencoded"
HANDLE = "AAAAAAAAAAAAAAAAAAAAAA"

ALLOWED = {
    "/": "GET, HEAD, OPTIONS",
    "/login": "GET, HEAD, POST, OPTIONS",
    "/logout": "POST, OPTIONS",
    "/session": "GET, HEAD, PATCH, OPTIONS",
    "/session/increment": "POST, OPTIONS",
    "/account/sessions": "GET, HEAD, OPTIONS",
    "/account/sessions/revoke-others": "POST, OPTIONS",
    f"/account/sessions/{HANDLE}/revoke": "POST, OPTIONS",
    "/healthz": "GET, HEAD, OPTIONS",
    "/readyz": "GET, HEAD, OPTIONS",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "FOO", "get")
POSTS_OF_FORMS = (
    "/login",
    "/logout",
    "/account/sessions/revoke-others",
    f"/account/sessions/{HANDLE}/revoke",
)
JSON_ONLY = (("PATCH", "/session"), ("POST", "/session/increment"))
WITH_BODIES = (*(("POST", path) for path in POSTS_OF_FORMS), *JSON_ONLY)
STATIC = "/static/style.css"
OTHERS = ("/x", "/favicon.ico", STATIC, "/static/x")


# --- methods ---


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ALLOWED)
async def test_what_an_address_does_not_take_is_405_with_what_it_does(path: str, site: Site) -> None:
    """TRACE, methods nobody knows and those meant for other addresses alike, with a session and without."""
    for browser in (site.browser(), await site.signed_in()):
        site.store.calls.clear()
        for method in METHODS:
            if method in ALLOWED[path].split(", "):
                continue
            body = b"{}" if method in ("POST", "PUT", "PATCH") else None
            response = await browser.fetch(method, path, body=body, headers={"Content-Type": JSON})

            assert (response.code, response.headers["Allow"]) == (405, ALLOWED[path])  # F14
        assert site.store.calls.total() == 0


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ALLOWED)
async def test_options_tells_the_methods_and_does_nothing(path: str, site: Site) -> None:
    """No store call, no cookie, and no permission for another site to do anything."""
    browser = await site.signed_in()
    site.store.calls.clear()
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    response = await browser.fetch("OPTIONS", path, headers=preflight)

    assert (response.code, response.headers["Allow"], response.body) == (204, ALLOWED[path], b"")
    assert not any(name.startswith("Access-Control") for name in response.headers)  # F5
    assert "Set-Cookie" not in response.headers
    assert site.store.calls.total() == 0  # F4


@pytest.mark.gen_test
@pytest.mark.parametrize("path", [path for path in ALLOWED if "GET" in ALLOWED[path]])
async def test_head_answers_as_get_without_the_body(path: str, site: Site) -> None:
    """Same status, same header names, nothing after them."""
    browser = await site.signed_in()
    get, head = await browser.get(path), await browser.fetch("HEAD", path)

    assert (head.code, head.body) == (get.code, b"")
    assert sorted(head.headers) == sorted(get.headers)
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.gen_test
async def test_reading_writes_nothing(site: Site) -> None:
    """GET, HEAD and OPTIONS change no record anywhere, whoever asks, whatever the query says."""
    browser = await site.signed_in()
    before = await site.records()
    query = "?" + urlencode(
        {"username": "bob", "password": PASSWORD, "a": 1, "_xsrf": "x", "_method": "POST"}
    )
    for path in ALLOWED:
        for method in ("GET", "HEAD", "OPTIONS"):
            await browser.fetch(method, path + query)

    assert await site.records() == before  # F4
    assert not site.store.calls.keys() & {"apply", "rotate", "destroy"}


# --- bodies ---

WRONG_TYPES = {
    "text": "text/plain",
    "text that looks like JSON": "text/plain; application/json",
    "text by another name": "text/json",
    "multipart": "multipart/form-data; boundary=x",
    "another charset": "application/json; charset=iso-8859-1",
    "a parameter more": "application/json; charset=utf-8; version=2",
    "another parameter": "application/json; boundary=x",
    "nothing after the semicolon": "application/json;",
    "two types": "application/json, text/plain",
    "a longer name": "application/json-patch+json",
    "half a type": "application/",
    "a form in another charset": f"{FORM}; charset=windows-1252",
    "a form with a parameter": f"{FORM}; x=1",
    "a longer form": f"{FORM}x",
}


@pytest.mark.gen_test
@pytest.mark.parametrize("media", WRONG_TYPES.values(), ids=WRONG_TYPES)
async def test_a_body_of_another_type_is_refused_everywhere(media: str, site: Site) -> None:
    """Exactly the documented types are read; 415 comes before any token is looked at, or any store."""
    browser = await site.signed_in()
    site.store.calls.clear()
    for method, path in WITH_BODIES:
        for each in (browser, site.browser()):
            response = await each.fetch(method, path, body=b'{"a": 1}', headers={"Content-Type": media})

            # Tornado reads multipart before anybody is asked, and this one is malformed.
            assert response.code == (400 if "multipart" in media else 415)  # E8
    assert site.store.calls.total() == 0


@pytest.mark.gen_test
async def test_a_body_of_no_type_is_refused_everywhere(site: Site) -> None:
    """A type is not guessed from the body; multipart that is well formed is not read either."""
    browser = await site.signed_in()
    multipart = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nalice\r\n--x--\r\n'
    for method, path in WITH_BODIES:
        start = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 8\r\n"
        bare = await site.raw(f'{start}Cookie: id={browser.cookies["id"]}\r\n\r\n{{"a": 1}}'.encode())
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        parts = await browser.fetch(method, path, body=multipart, headers=headers)

        assert (bare.split()[1], parts.code) == (b"415", 415)  # E8


@pytest.mark.gen_test
@pytest.mark.parametrize(("method", "path"), JSON_ONLY)
async def test_the_json_interface_takes_no_forms(method: str, path: str, site: Site) -> None:
    """What a form of another site can send is not read there, token or not."""
    browser = await site.signed_in()
    body = urlencode({"_xsrf": token(await browser.get("/")), "a": "1"})
    response = await browser.fetch(method, path, body=body, headers={"Content-Type": FORM})

    assert response.code == 415  # E8


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "media",
    [
        JSON,
        "application/json; charset=utf-8",
        'APPLICATION/JSON;charset="UTF-8"',
        "application/json ;charset=utf-8",
    ],
)
async def test_json_may_say_that_it_is_utf_8(media: str, site: Site) -> None:
    """In the ways in which clients say it."""
    response = await site.browser().fetch(
        "PATCH", "/session", body='{"a": "é"}'.encode(), headers={"Content-Type": media}
    )

    assert (response.code, json.loads(response.body)["data"]) == (200, {"a": "é"})


# --- errors ---


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/session/",
        "//evil.example/",
        "/account/sessions/a.b/revoke",
        "/%2e%2e/etc/passwd",
        "/login/x",
    ],
)
async def test_nowhere_is_404_for_every_method(path: str, site: Site) -> None:
    """A small page, or JSON for whom it is for, and never the way to somewhere else."""
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        body = b"x" if method in ("POST", "PUT", "PATCH") else None
        page = await site.browser().fetch(method, path, body=body)
        answer = await site.browser().fetch(method, path, body=body, headers={"Accept": JSON})

        assert (page.code, answer.code) == (404, 404)
        if method != "HEAD":
            assert b"<h1>" in page.body
            assert json.loads(answer.body)["error"]["code"] == "not_found"


@pytest.mark.gen_test
async def test_the_page_of_an_unknown_address_knows_the_user(site: Site) -> None:
    """It has the navigation, whose sign-out form works; without a store it is a 404 all the same."""
    browser = await site.signed_in()
    page = await browser.get("/nowhere")
    site.store.fail["load"] = StoreUnavailable("down")
    down = await browser.get("/nowhere")
    site.store.fail.clear()
    visitor = await site.browser().get("/nowhere")
    left = await browser.post_form("/logout", token(page))

    assert [each.code for each in (page, down, visitor)] == [404, 404, 404]
    assert [b"Sign out" in each.body for each in (page, down, visitor)] == [True, False, False]
    assert left.headers["Location"] == "/signed-out"


@pytest.mark.gen_test
async def test_an_ended_session_is_told_with_a_way_on(site: Site) -> None:
    """The page of a write that came too late says what happened, and offers to try again and to sign in."""
    browser = await site.signed_in()
    xsrf = token(await browser.get("/login"))
    site.store.fail["rotate"] = SessionEnded()
    page = (await browser.post_form("/login", xsrf, username="alice", password=PASSWORD)).body.decode()

    assert "Your session has ended. Nothing was saved." in page
    assert '<a class="button" href="/login">Try again</a>' in page
    assert '<a class="button quiet" href="/login">Sign in</a>' in page


@pytest.mark.gen_test
async def test_an_unforeseen_error_tells_nothing(site: Site) -> None:
    """A fault in a store is a 500 without its message, its type or a trace, as a page and as JSON."""
    browser = await site.signed_in()
    site.store.fail["load"] = RuntimeError("redis://user:hunter2@10.0.0.1/0 is broken")
    page = await browser.get("/")
    answer = await browser.get("/session")

    assert (page.code, answer.code) == (500, 500)
    for body in (page.body.decode(), answer.body.decode()):
        for word in ("hunter2", "RuntimeError", "Traceback", "redis", ".py"):
            assert word not in body  # F10
    assert json.loads(answer.body) == {
        "error": {
            "code": "internal",
            "message": "An error occurred on the server, and your change may not be saved. Try again later.",
        }
    }


@pytest.mark.gen_test
async def test_an_error_page_leads_back_to_where_one_came_from(site: Site) -> None:
    """Try again means the page that failed, or for a form the page that has it."""
    browser = await site.signed_in()
    xsrf = token(await browser.get("/"))
    site.store.fail["load"] = StoreUnavailable("load")
    answers = {
        "/account/sessions?x=1&amp;y=2": await browser.get("/account/sessions?x=1&y=2"),
        "/account/sessions": await browser.post_form("/account/sessions/revoke-others", xsrf),
        "/login?next=/a": await browser.get("/login?next=/a"),
        "/login": await browser.post_form("/login", xsrf, username="alice", password=PASSWORD),
        "/": await browser.post_form("/logout", xsrf),
    }

    for target, response in answers.items():
        assert response.code == 503
        assert f'<a class="button" href="{target}">Try again</a>' in response.body.decode()


# --- headers ---


async def everything(site: Site) -> list[tuple[str, int, dict[str, str]]]:
    """Return the headers of an answer of every kind."""
    browser, visitor = await site.signed_in(), site.browser()
    other = await site.signed_in()
    xsrf = token(await browser.get("/"))
    bad, both = {"Content-Type": JSON}, (browser, visitor)
    answers = [
        *[await each.get(path) for path in (*ALLOWED, *OTHERS) for each in both],
        *[await each.get(path, Accept=JSON) for path in (*ALLOWED, *OTHERS) for each in both],
        *[await each.fetch("OPTIONS", path) for path in (*ALLOWED, STATIC) for each in both],
        *[await each.fetch("TRACE", path) for path in (*ALLOWED, *OTHERS) for each in both],
        await sign_in(visitor, password="wrong"),
        await sign_in(visitor),
        await browser.post_form("/account/sessions/revoke-others", xsrf),
        await other.get("/"),
        await browser.post_form("/logout", "wrong"),
        await browser.fetch("PATCH", "/session", body=b"{", headers=bad),
        await browser.fetch("PATCH", "/session", body=json.dumps({"a": "x" * 70_000}), headers=bad),
        await browser.fetch("PATCH", "/session", body=b"x", headers={"Content-Type": "text/plain"}),
        await browser.fetch("POST", STATIC, body=b"x"),
        await browser.post_form("/logout", xsrf),
    ]
    site.store.fail["load"] = StoreUnavailable("load")
    answers.append(await visitor.get("/"))
    site.store.fail["load"] = RuntimeError("x")
    answers.append(await visitor.get("/"))
    return [(str(each.effective_url), each.code, dict(each.headers.get_all())) for each in answers]


@pytest.mark.gen_test
async def test_no_answer_names_the_software(site: Site) -> None:
    """There is no Server header anywhere: pages, redirects, static files, and every error."""
    answers = await everything(site)

    assert {status for _, status, _ in answers} >= {
        200,
        204,
        303,
        400,
        401,
        403,
        404,
        405,
        413,
        415,
        500,
        503,
    }
    for _, _, headers in answers:
        assert "Server" not in headers  # F8
        assert "tornado" not in str(headers).lower()


@pytest.mark.gen_test
async def test_no_answer_may_be_stored_but_static_files(site: Site) -> None:
    """Everything is no-store and varies by the cookie, errors and redirects included."""
    for url, status, headers in await everything(site):
        if "/static/" in url or "favicon" in url:
            continue
        assert (status, headers["Cache-Control"]) == (status, "no-store")  # F6
        assert headers["Vary"] == "Accept, Cookie"
        assert "Etag" not in headers


@pytest.mark.gen_test
async def test_no_answer_lets_another_site_in(site: Site) -> None:
    """No CORS permission anywhere; no sniffing, no framing, no scripts, no address for other sites."""
    for url, _, headers in await everything(site):
        assert not any(name.startswith("Access-Control") for name in headers)  # F5
        assert headers["X-Content-Type-Options"] == "nosniff"
        if "/static/" not in url and "favicon" not in url:
            policy = headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["Referrer-Policy"] == "same-origin"


# --- static files ---


@pytest.mark.gen_test
async def test_pages_find_their_style_and_icon(site: Site) -> None:
    """Each link in a page is there, of the right type, and may be kept by anyone: no cookie is involved."""
    page = (await site.browser().get("/")).body.decode()
    links = [part.partition('"')[0] for part in page.split('href="/static')[1:]]
    for link in links:
        response = await site.browser().get("/static" + link)

        assert response.code == 200
        assert response.headers["Content-Type"] in ("text/css", "image/svg+xml")
        assert response.headers["Cache-Control"] == "max-age=31536000"
        assert "Set-Cookie" not in response.headers
    assert len(links) == 2


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/",
        "/static/x",
        "/static//etc/passwd",
        "/static/%00",
    ],
)
async def test_nothing_else_is_static(path: str, site: Site) -> None:
    """Only files of that one folder; the answer is short and tells no path."""
    response = await site.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = response.partition(b"\r\n\r\n")

    assert head.split()[1] in (b"403", b"404")
    assert body == b"There is nothing at this address.\n"  # F10


@pytest.mark.gen_test
async def test_static_files_are_only_read(site: Site) -> None:
    """Every other method is a 405 that says so."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "FOO"):
        body = b"x" if method in ("POST", "PUT") else None
        response = await site.browser().fetch(method, STATIC, body=body)

        assert (response.code, response.headers["Allow"]) == (405, "GET, HEAD")  # F14


@pytest.mark.gen_test
async def test_behind_a_proxy_nobody_gets_past_it(open_site: OpenSite) -> None:
    """A peer that is not the proxy cannot sign in over plain HTTP; only health is for everybody."""  # A5
    site = open_site(proxies=(ipaddress.ip_network("10.0.0.0/8"),))
    browser = site.browser()
    credentials = {"username": "alice", "password": PASSWORD}

    status, body = await browser.json("POST", "/login", credentials)
    others = [(await browser.get(path)).code for path in ("/", "/login", "/session", "/healthz", "/readyz")]

    assert (status, body["error"]["code"], browser.cookies) == (403, "insecure_transport", {})
    assert others == [403, 403, 403, 200, 200]
    assert set(site.store.calls) == {"ping"}
