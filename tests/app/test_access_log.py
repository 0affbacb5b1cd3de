"""What the server writes to its log, and what it never does, at any level, whatever is sent to it."""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Iterator

import pytest

from stormcellar.app import logging_setup
from stormcellar.stores import StoreUnavailable
from tests.support.browser import Browser, token
from tests.support.site import JSON, PASSWORD, OpenSite, Site, session_secret

MARK = "QUERYMARK"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that is logged in this test, by anybody, at every level."""
    logging_setup.redact()
    with caplog.at_level(logging.DEBUG):
        yield caplog


def secrets_of(site: Site, browser: Browser, *more: str) -> list[str]:
    """Return what must not be in the log while *browser* is signed in."""
    cookie = browser.cookies["id"]
    return [cookie, cookie.split("|")[4], session_secret(site, browser), PASSWORD, MARK, *more]


@pytest.mark.gen_test
async def test_the_log_holds_no_secret_of_a_whole_visit(site: Site, log: pytest.LogCaptureFixture) -> None:
    """No cookie, secret, form token, password, session value or query string, at level debug."""
    browser = site.browser()
    xsrf = token(await browser.get(f"/login?next=/{MARK}"))
    await browser.post_form("/login", xsrf, username="alice", password=PASSWORD + "wrong")
    await browser.post_form("/login", xsrf, username="alice", password=PASSWORD)
    forbidden = secrets_of(site, browser, xsrf)
    await browser.json("PATCH", "/session", {"note": MARK})
    for path in (
        "/",
        "/session",
        "/account/sessions",
        "/nowhere",
        "/static/style.css",
        "/static/x",
        "/logout",
    ):
        await browser.get(f"{path}?token={MARK}&_xsrf={MARK}", Referer=f"{site.base}/?{MARK}")
    await browser.json("PATCH", f"/session?{MARK}", {"bad key": MARK})
    await browser.fetch("PATCH", "/session", body=f'{{"{MARK}', headers={"Content-Type": JSON})
    await browser.fetch("PATCH", "/session", body=MARK, headers={"Content-Type": MARK})
    await browser.post_form(f"/logout?{MARK}", MARK)
    await browser.fetch("POST", "/logout", body=MARK, headers={"Origin": f"https://{MARK}"})
    body = f"_xsrf={xsrf}&username=%ff{MARK}&password={MARK}%ff"
    await browser.fetch(
        "POST", "/login", body=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    await browser.submit("/", "/logout")

    assert "POST /login 303" in log.text  # I4
    for secret in forbidden:
        assert secret not in log.text  # I2


BROKEN = [
    "GET / HTTP/1.1\r\nHost: localhost\r\nCookie: id={cookie}\x01\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: localhost\r\nCookie: id={cookie}\x00; a=b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: localhost\r\nCookie: id={cookie}\r\n\x7f: x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: localhost\r\nCookie id={cookie}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: {cookie}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: id={cookie} x\r\n\r\n",
    "GET /?{cookie} HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "{cookie} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "Cookie: id={cookie}\r\n\r\n",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {cookie}\r\n\r\n",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {cookie}\r\n\r\n",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{cookie}\r\n",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n"
    "Content-Type: multipart/form-data; boundary={cookie}\r\n\r\nx",
    "POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\nContent-Encoding: {cookie}\r\n\r\nx",
    "GET /account/sessions?next=%ff{cookie} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "GET /static/%ff?{cookie} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "GET /static/../x?{cookie} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "POST /static/x?{cookie} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
]


@pytest.mark.gen_test
@pytest.mark.parametrize("request_text", BROKEN)
async def test_the_log_holds_no_cookie_of_a_broken_request(
    request_text: str, site: Site, log: pytest.LogCaptureFixture
) -> None:
    """A live cookie in a request that is no HTTP, or hardly, is not written to the log by anybody."""
    browser = await site.signed_in()
    forbidden = secrets_of(site, browser)
    log.clear()
    await site.raw(request_text.replace("{cookie}", browser.cookies["id"]).encode("latin1"))

    signature = browser.cookies["id"].rpartition("|")[2]
    for secret in [*forbidden, signature]:
        assert secret not in log.text  # I2


@pytest.mark.gen_test
async def test_a_malformed_request_is_still_noted(site: Site, log: pytest.LogCaptureFixture) -> None:
    """The line stays, so that an operator sees that something is off; what was sent does not."""
    await site.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: id=x\x01y\r\n\r\n")

    assert [(r.name, r.getMessage()) for r in log.records if r.name.startswith("tornado")] == [
        ("tornado.general", "Malformed HTTP message (details withheld)")
    ]


@pytest.mark.gen_test
async def test_nobody_can_write_a_line_of_their_own(site: Site, log: pytest.LogCaptureFixture) -> None:
    """A path, a method or an address that is long or strange stays one short line."""
    await site.raw(
        b"GET /a%0d%0aINFO\xe2\x80\xa8forged\x85x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    await site.raw(b"A" * 5000 + b" / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    await site.raw(b"GET /" + b"b" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    lines = [r.getMessage() for r in log.records if r.name.startswith("stormcellar")]
    assert len(lines) == 6
    assert all(line.isascii() and line.isprintable() and len(line) < 300 for line in lines)  # I3


@pytest.mark.gen_test
async def test_a_failing_store_is_logged_with_its_cause_and_nothing_else(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    """One warning that names the fault, without a trace and without its text, which may hold an address."""
    browser = await site.signed_in()
    error = StoreUnavailable("load")
    error.__cause__ = ConnectionError("redis://user:hunter2@10.0.0.1")
    site.store.fail["load"] = error
    log.clear()
    await browser.get(f"/?{MARK}")

    lines = [r.getMessage() for r in log.records if r.levelno >= logging.WARNING]
    assert lines == ["GET /: StoreUnavailable (ConnectionError)"]
    assert "hunter2" not in log.text


@pytest.mark.gen_test
async def test_an_unforeseen_error_is_logged_with_its_trace_but_without_the_request(
    site: Site, log: pytest.LogCaptureFixture
) -> None:
    """An operator finds where it happened; query, cookie and body are not there."""
    browser = await site.signed_in()
    forbidden = secrets_of(site, browser)
    site.store.fail["apply"] = RuntimeError("boom")
    log.clear()
    headers = {"Content-Type": JSON}
    body = json.dumps({"note": MARK})
    response = await browser.fetch("PATCH", f"/session?{MARK}", body=body, headers=headers)

    assert response.code == 500
    assert "PATCH /session: uncaught" in log.text
    assert "RuntimeError: boom" in log.text
    for secret in forbidden:
        assert secret not in log.text


@pytest.mark.gen_test
async def test_the_log_names_the_client_behind_a_trusted_proxy(
    open_site: OpenSite, log: pytest.LogCaptureFixture
) -> None:
    """What a proxy that is trusted says is logged; what anybody else says is not."""
    direct = open_site()
    behind = open_site(proxies=(ipaddress.ip_network("127.0.0.0/8"),))
    log.clear()
    for site in (direct, behind):
        await site.browser().get("/healthz", X_Forwarded_For="6.6.6.6, 203.0.113.9")

    lines = [r.getMessage().partition(" ")[0] for r in log.records if r.name == "stormcellar.access"]
    assert lines == ["127.0.0.1", "203.0.113.9"]
