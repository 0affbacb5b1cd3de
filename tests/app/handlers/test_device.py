"""The device cookie over HTTP: an owner gets in during an attack, and visitors get no cookie."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
from urllib.parse import urlencode

import pytest
from tornado.httpclient import HTTPResponse

from stormcellar.accounts.throttle import Rules
from stormcellar.app.edge import Edge
from tests.support.browser import Browser, token
from tests.support.site import ACCOUNTS, JSON, PASSWORD, OpenSite, Site, sign_in

FORM = "application/x-www-form-urlencoded"
PROXY = (ipaddress.ip_network("127.0.0.1/32"),)
HOME, AWAY = "192.0.2.7", "198.51.100.9"


async def sign_in_from(browser: Browser, address: str, password: str = PASSWORD) -> HTTPResponse:
    """Open the sign-in form and send it, as a client at *address* behind the proxy."""
    seen = {"X-Forwarded-For": address, "X-Forwarded-Proto": "https", "Origin": browser.base}
    page = await browser.fetch("GET", "/login", headers=seen)
    body = urlencode({"_xsrf": token(page), "username": "alice", "password": password})
    return await browser.fetch("POST", "/login", body=body, headers=seen | {"Content-Type": FORM})


async def sign_in_with_json(browser: Browser) -> HTTPResponse:
    """Sign in with JSON."""
    body = json.dumps({"username": "alice", "password": PASSWORD})
    return await browser.fetch("POST", "/login", body=body, headers={"Content-Type": JSON, "Accept": JSON})


def device_line(answer: HTTPResponse) -> str:
    """Return the one Set-Cookie line of the device cookie."""
    (line,) = [each for each in answer.headers.get_list("Set-Cookie") if "-device=" in each]
    return line


async def attack(site: Site, *, guesses: int = 10) -> list[int]:
    """Guess from as many addresses; return the status of each answer."""
    return [
        (await sign_in_from(site.browser(), f"203.0.113.{number}", "wrong")).code for number in range(guesses)
    ]


@pytest.mark.gen_test
async def test_owner_signs_in_at_a_new_address_during_an_attack(open_site: OpenSite) -> None:
    """Their browser is known to the account, wherever it is; another browser there waits."""  # E10
    site = open_site(proxies=PROXY, rules=Rules(attempts_per_account=5))
    phone = site.browser()
    first = await sign_in_from(phone, HOME)
    guessed = await attack(site)

    stranger = await sign_in_from(site.browser(), AWAY)
    owner = await sign_in_from(phone, AWAY)

    assert (first.code, guessed) == (303, [401] * 5 + [429] * 5)
    assert (stranger.code, owner.code) == (429, 303)


@pytest.mark.gen_test
async def test_cookie_comes_with_a_sign_in_and_stays(open_site: OpenSite) -> None:
    """A form and JSON set it for 90 days, with the attributes of the session cookie; it stays."""  # A4
    for site, name in (
        (open_site(edge=Edge(is_secure=True)), "__Host-id-device"),
        (open_site(), "id-device"),
    ):
        form, script = site.browser(), site.browser()
        answers = [await sign_in(form), await sign_in_with_json(script)]
        answers += [await sign_in(form, "bob"), await sign_in_with_json(script)]
        lines = [device_line(answer) for answer in answers]

        assert [line.partition("=")[0] for line in lines] == [name] * 4
        assert {line.partition("; ")[2] for line in lines} == {
            "Max-Age=7776000; HttpOnly; Path=/; SameSite=Lax" + ("; Secure" if site.sessions.secure else "")
        }
        assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}  # F6
        assert all("Cookie" in answer.headers["Vary"] for answer in answers)
        assert (lines[0], lines[1]) == (lines[2], lines[3]) and lines[0] != lines[1]


@pytest.mark.gen_test
async def test_visitors_and_refused_sign_ins_get_no_cookie(open_site: OpenSite) -> None:
    """Neither a page, nor a wrong password, nor a try too many, nor an account disabled just then."""  # A15
    site = open_site(rules=Rules(attempts=1))
    browser = site.browser()
    await browser.get("/")
    answers = [await sign_in(browser, password="wrong"), await sign_in(browser)]
    gate = site.store.gate("create")
    signing_in = asyncio.ensure_future(sign_in(site.browser(), "bob"))
    await gate.reached()
    site.context.accounts._accounts["bob"] = ACCOUNTS["dora"]  # type: ignore[attr-defined]
    gate.open()
    answers.append(await signing_in)

    assert [answer.code for answer in answers] == [401, 429, 401]
    assert not any("device" in line for each in answers for line in each.headers.get_list("Set-Cookie"))
    assert browser.cookies.keys() == {"id-form"}


@pytest.mark.gen_test
async def test_signing_out_keeps_the_cookie(site: Site) -> None:
    """Who signs out each time must be known at the next sign-in, too."""  # E10
    browser = await site.signed_in()
    given = browser.cookies["id-device"]
    answer = await browser.submit("/", "/logout")

    assert browser.cookies == {"id-device": given}
    assert not any("device" in line for line in answer.headers.get_list("Set-Cookie"))


@pytest.mark.gen_test
@pytest.mark.parametrize("sent", ["{0}x", "{0}; __Host-id-device={0}", "", '"{0}"', "foreign"])
async def test_token_that_is_not_one_counts_as_none(sent: str, open_site: OpenSite) -> None:
    """Malformed, doubled, or of another account: it helps nobody, and a sign-in sets one."""  # A7, E9
    site = open_site(proxies=PROXY, rules=Rules(attempts_per_account=5))
    phone, other = site.browser(), site.browser()
    await sign_in_from(phone, HOME)
    await sign_in(other, "bob")
    tokens = [each.cookies["__Host-id-device"] for each in (phone, other)]
    await attack(site)
    phone.cookies["__Host-id-device"] = tokens[1] if sent == "foreign" else sent.format(tokens[0])
    refused = await sign_in_from(phone, AWAY)
    admitted = await sign_in_from(phone, HOME)

    assert (refused.code, admitted.code) == (429, 303)
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", phone.cookies["__Host-id-device"])


@pytest.mark.gen_test
async def test_new_password_leaves_this_browser_known_alone(open_site: OpenSite) -> None:
    """The tokens of all others are of no use from then on."""  # E9
    site = open_site(proxies=PROXY, rules=Rules(attempts_per_account=5))
    phone, laptop = site.browser(), site.browser()
    await sign_in_from(laptop, HOME)
    await sign_in_from(phone, HOME)
    seen = {"X-Forwarded-For": HOME, "X-Forwarded-Proto": "https", "Origin": phone.base}
    page = await phone.fetch("GET", "/account/password", headers=seen)
    fields = {"_xsrf": token(page), "current": PASSWORD, "new": "a new horse battery"}
    changed = await phone.fetch(
        "POST", "/account/password", body=urlencode(fields), headers=seen | {"Content-Type": FORM}
    )
    site.clock.advance(1)
    guessed = await attack(site)
    answers = [await sign_in_from(each, AWAY, fields["new"]) for each in (laptop, phone)]

    assert (changed.code, guessed) == (303, [401] * 5 + [429] * 5)
    assert [answer.code for answer in answers] == [429, 303]


@pytest.mark.gen_test
async def test_confirming_the_password_makes_the_browser_known(site: Site) -> None:
    """It proves the same as a sign-in, so a session that lasts for months keeps its browser known."""
    browser = await site.signed_in()
    del browser.cookies["id-device"]
    answer = await browser.submit("/account/confirm", "/account/confirm", password=PASSWORD)

    assert (answer.code, device_line(answer).partition("=")[0]) == (303, "id-device")


@pytest.mark.gen_test
async def test_too_many_new_devices_sign_in_without_a_cookie(site: Site) -> None:
    """A client that keeps no cookies signs in as often as ever."""
    answers = [await sign_in_with_json(site.browser()) for _ in range(22)]

    assert [answer.code for answer in answers] == [200] * 22
    given = ["device" in str(answer.headers.get_list("Set-Cookie")) for answer in answers]
    assert given == [True] * 20 + [False] * 2


@pytest.mark.gen_test
async def test_token_is_told_nowhere(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a log at level debug, nor in an event, nor on a page, nor in a record."""  # I2
    with caplog.at_level(logging.DEBUG):
        browser = await site.signed_in()
        await sign_in(browser, password="wrong")
        pages = [await browser.get(path) for path in ("/", "/account/sessions", "/session")]
        shown = caplog.text + str(site.events) + str(await site.records())

    assert "POST /login 303" in shown
    assert browser.cookies["id-device"] not in shown + "".join(page.body.decode() for page in pages)
