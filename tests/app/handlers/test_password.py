"""Changing the password: what it takes, what it ends, and what it leaves alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tornado.httpclient import HTTPResponse

from stormcellar.accounts.directory import MemoryAccounts
from stormcellar.accounts.passwords import PasswordChecker
from stormcellar.accounts.throttle import Rules
from stormcellar.events import Kind
from tests.support.browser import Browser, token
from tests.support.fakes import Clock, Gate
from tests.support.site import ACCOUNTS, CHEAP, PASSWORD, OpenSite, Site, session_handle, sign_in

PAGE = "/account/password"
NEW = "a storm in the cellar"


@dataclass
class Gates:
    """Where the next verification waits with its result, and the next change before it begins."""

    verify: list[Gate] = field(default_factory=list)
    change: list[Gate] = field(default_factory=list)


class GatedAccounts(MemoryAccounts):
    """Accounts in memory whose work a test can hold."""

    gates: Gates

    async def verify(self, name: str, password: str) -> str | None:
        """Verify, then wait."""
        user = await super().verify(name, password)
        if self.gates.verify:
            await self.gates.verify.pop(0).arrive()
        return user

    async def set_password(self, user: str, new: str, *, verified_ms: int) -> int:
        """Wait, then change."""
        if self.gates.change:
            await self.gates.change.pop(0).arrive()
        return await super().set_password(user, new, verified_ms=verified_ms)


OpenGated = Callable[..., tuple[Site, Gates]]


@pytest.fixture
def open_gated(open_site: OpenSite) -> OpenGated:
    """A function that starts a site whose account directory can be held."""

    def open_one(**options: object) -> tuple[Site, Gates]:
        clock, checker = Clock(), PasswordChecker(argon2_hasher=CHEAP)
        accounts = GatedAccounts(ACCOUNTS, checker=checker, clock=clock)
        accounts.gates = Gates()
        return open_site(clock=clock, checker=checker, accounts=accounts, **options), accounts.gates

    return open_one


@pytest.fixture
def site(open_gated: OpenGated) -> Site:
    """A site whose accounts go by its clock."""
    return open_gated()[0]


async def change(browser: Browser, current: str = PASSWORD, new: str = NEW) -> HTTPResponse:
    """Open the form, fill it in, send it."""
    return await browser.submit(PAGE, PAGE, current=current, new=new)


async def user_of(browser: Browser) -> str | None:
    """Return who is signed in there."""
    _, body = await browser.json("GET", "/session")
    return body["user"]  # type: ignore[no-any-return]


async def opens(site: Site, password: str) -> bool:
    """Whether alice can sign in with *password*, a moment later."""
    site.clock.advance(1)
    return (await sign_in(site.browser(), password=password)).code == 303


# --- what it does ---


@pytest.mark.gen_test
async def test_the_new_password_takes_the_place_of_the_old(site: Site) -> None:
    """From then on it opens, the old one does not, and the page that follows says so."""
    browser = await site.signed_in()
    response = await change(browser)
    home = (await browser.get("/")).body

    assert (response.code, response.headers["Location"]) == (303, "/")
    assert b'role="status">Your password was changed. You are signed out everywhere else.' in home
    assert [await opens(site, NEW), await opens(site, PASSWORD)] == [True, False]  # E16


@pytest.mark.gen_test
async def test_this_session_goes_on_under_a_new_id(site: Site) -> None:
    """With its data; the ID from before is dead."""
    browser = await site.signed_in()
    await browser.json("PATCH", "/session", {"cart": [1]})
    handle, old = session_handle(site, browser), browser.copy()
    await change(browser)

    assert (await browser.json("GET", "/session"))[1]["data"] == {"cart": [1]}
    assert await user_of(browser) == "alice"
    assert session_handle(site, browser) == handle
    assert old.cookies["id"] != browser.cookies["id"]
    assert await user_of(old) is None  # C2


@pytest.mark.gen_test
async def test_all_other_sessions_of_the_user_end(site: Site) -> None:
    """And nobody else's."""
    browser, other, bob = await site.signed_in(), await site.signed_in(), await site.signed_in("bob")
    site.clock.advance(60)
    await change(browser)

    assert [await user_of(each) for each in (browser, other, bob)] == ["alice", None, "bob"]  # C10
    assert len(await site.records()) == 2


@pytest.mark.gen_test
async def test_a_sign_in_that_ends_while_it_runs_does_not_outlive_it(open_gated: OpenGated) -> None:
    """Whoever gets in with the old password before the new one is stored is out once it is."""
    site, gates = open_gated()
    browser, gate = await site.signed_in(), Gate()
    gates.change.append(gate)
    changing = asyncio.ensure_future(change(browser))
    await gate.reached()
    site.clock.advance(1)
    intruder = await site.signed_in()
    assert await user_of(intruder) == "alice"
    gate.open()
    await changing

    assert [await user_of(browser), await user_of(intruder)] == ["alice", None]  # C10


@pytest.mark.gen_test
async def test_a_sign_in_that_began_while_it_ran_is_too_late_after_it(open_gated: OpenGated) -> None:
    """A password that was right when it was looked at opens nothing once it was changed."""
    site, gates = open_gated()
    browser, intruder, changes, verifies = await site.signed_in(), site.browser(), Gate(), Gate()
    gates.change.append(changes)
    changing = asyncio.ensure_future(change(browser))
    await changes.reached()
    site.clock.advance(1)
    gates.verify.append(verifies)
    signing_in = asyncio.ensure_future(sign_in(intruder))
    await verifies.reached()
    site.clock.advance(1)
    changes.open()
    await changing
    verifies.open()

    assert (await signing_in).code == 401
    assert "id" not in intruder.cookies
    assert len(await site.records()) == 1  # C10


@pytest.mark.gen_test
async def test_of_two_changes_at_once_one_holds(open_gated: OpenGated) -> None:
    """The other was made with a password that is no longer the current one, and is told so."""
    site, gates = open_gated()
    browsers, gate_one, gate_two = [await site.signed_in() for _ in range(2)], Gate(), Gate()
    gates.change += [gate_one, gate_two]
    changes = [
        asyncio.ensure_future(change(browser, new=f"storm number {n}")) for n, browser in enumerate(browsers)
    ]
    await asyncio.gather(gate_one.reached(), gate_two.reached())
    gate_one.open()
    gate_two.open()
    codes = [response.code for response in await asyncio.gather(*changes)]

    assert sorted(codes) == [303, 409]
    assert [await opens(site, f"storm number {n}") for n in range(2)] == [code == 303 for code in codes]


@pytest.mark.gen_test
async def test_it_is_told_as_an_event(site: Site) -> None:
    """Who, from where and in which session, so that the owner can be written to."""
    browser = await site.signed_in()
    handle = session_handle(site, browser)
    await change(browser)

    (event,) = [each for each in site.events if each.kind is Kind.PASSWORD_CHANGED]
    told = (event.at_ms, event.user, event.handle, event.address, event.reason)
    assert told == (site.sessions.now_ms(), "alice", handle, "127.0.0.1", None)  # I10
    assert NEW not in str(site.events) and PASSWORD not in str(site.events)


# --- what it takes ---


@pytest.mark.gen_test
async def test_without_the_current_password_nothing_changes(site: Site) -> None:
    """Neither the password nor any session; the form comes back with what was wrong, and nothing typed."""
    browser, other = await site.signed_in(), await site.signed_in()
    before = dict(browser.cookies)
    response = await change(browser, current="guess-7", new="typed-password-7")

    assert response.code == 403  # E16
    assert b'role="alert" id="error">The current password is wrong. Try again.' in response.body
    assert b"guess-7" not in response.body and b"typed-password-7" not in response.body  # E20
    assert browser.cookies == before
    assert [await user_of(each) for each in (browser, other)] == ["alice"] * 2
    assert await opens(site, PASSWORD)


@pytest.mark.gen_test
async def test_guessing_the_current_password_is_throttled(open_gated: OpenGated) -> None:
    """A stolen session is no way round the limit on guesses, and the right one is refused then, too."""
    site, _ = open_gated(rules=Rules(attempts=3))
    browser = await site.signed_in()
    codes = [(await change(browser, current=f"guess {n}")).code for n in range(3)]
    refused = await change(browser)

    assert codes == [403] * 3
    assert (refused.code, refused.headers["Retry-After"]) == (429, "10")  # E9
    assert b"Too many attempts. Try again in 10 seconds." in refused.body
    assert await user_of(browser) == "alice"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("new", "told"),
    [
        ("storm 7", "8 characters"),
        ("password1", "too common"),
        ("alice", "8 characters"),
        ("x" * 1025, "at most 1024 bytes"),
        ("", "8 characters"),
    ],
)
async def test_a_password_that_will_not_do_is_refused_in_a_sentence(new: str, told: str, site: Site) -> None:
    """The form says what would do; nothing is changed and nothing typed comes back."""
    browser, other = await site.signed_in(), await site.signed_in()
    response = await change(browser, new=new)
    status, body = await browser.json("POST", PAGE, {"current": PASSWORD, "new": new})

    (error,) = re.findall(rb'role="alert" id="error">([^<]+)<', response.body)
    assert (response.code, status) == (422, 422)  # E17
    assert told in error.decode() and error.endswith(b".")
    assert (body["error"]["code"], body["error"]["message"]) == ("password_refused", error.decode())
    assert len(new) < 6 or new.encode() not in response.body
    assert await user_of(other) == "alice"
    assert await opens(site, PASSWORD)


@pytest.mark.gen_test
async def test_an_account_disabled_meanwhile_gets_no_new_password(open_gated: OpenGated) -> None:
    """Whoever is locked out while they change it stays locked out."""
    site, gates = open_gated()
    browser, gate = await site.signed_in(), Gate()
    gates.change.append(gate)
    changing = asyncio.ensure_future(change(browser))
    await gate.reached()
    site.context.accounts._accounts["alice"] = ACCOUNTS["dora"]  # type: ignore[attr-defined]
    gate.open()

    assert (await changing).code == 409
    assert await user_of(browser) is None  # C10


@pytest.mark.gen_test
async def test_a_script_changes_it_too(site: Site) -> None:
    """No content on success, an error with its code otherwise."""
    browser, other = await site.signed_in(), await site.signed_in()
    site.clock.advance(1)
    wrong, body = await browser.json("POST", PAGE, {"current": "wrong", "new": NEW})
    right = await browser.json("POST", PAGE, {"current": PASSWORD, "new": NEW})

    assert (wrong, body["error"]["code"]) == (403, "bad_credentials")
    assert right == (204, None)
    assert [await user_of(each) for each in (browser, other)] == ["alice", None]


@pytest.mark.gen_test
async def test_it_is_for_users_only(site: Site) -> None:
    """A visitor is led to sign-in and back, a script is told."""
    browser = site.browser()
    xsrf = token(await browser.get("/login"))
    answers = [await browser.get(PAGE), await browser.post_form(PAGE, xsrf, current=PASSWORD, new=NEW)]
    status, _ = await browser.json("POST", PAGE, {"current": PASSWORD, "new": NEW})

    places = [(each.code, each.headers["Location"]) for each in answers]
    assert places == [(303, "/login?next=%2Faccount%2Fpassword")] * 2
    assert status == 401


@pytest.mark.gen_test
async def test_another_site_cannot_send_the_form(site: Site) -> None:
    """Without the token of this session, or with that of another, nothing happens."""
    browser, other = await site.signed_in(), await site.signed_in("bob")
    foreign = token(await other.get(PAGE))
    answers = [await browser.post_form(PAGE, each, current=PASSWORD, new=NEW) for each in ("", foreign)]

    assert [each.code for each in answers] == [403, 403]  # F1
    assert await opens(site, PASSWORD)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "body",
    ["current=a", "new=a", "current=a&current=b&new=c", "current=a&new=b&new=c", "current=%ff&new=b", ""],
)
async def test_a_malformed_form_is_refused(body: str, site: Site) -> None:
    """Each field once, as text, in the body."""
    browser = await site.signed_in()
    xsrf = token(await browser.get(PAGE))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    response = await browser.fetch("POST", PAGE, body=f"_xsrf={xsrf}&{body}", headers=headers)
    in_url = await browser.post_form(f"{PAGE}?current=a&new=b", xsrf)

    assert (response.code, in_url.code) == (400, 400)  # E7


@pytest.mark.gen_test
async def test_password_managers_know_their_way(site: Site) -> None:
    """The user name is there to be read, and each field says what it is for."""
    browser = await site.signed_in()
    page = (await browser.get(PAGE)).body.decode()

    inputs = {found[1]: found[0] for found in re.finditer(r'<input id="(\w+)"[^>]*>', page)}
    assert 'autocomplete="username" value="alice" readonly' in inputs["username"]
    assert 'type="password" autocomplete="current-password"' in inputs["current"]
    assert 'type="password" autocomplete="new-password" minlength="8"' in inputs["new"]


# --- while it runs ---


@pytest.mark.parametrize("moment", ["before the new ID", "with the record read before it"])
@pytest.mark.gen_test
async def test_another_tab_takes_nothing_from_who_changes_it(moment: str, site: Site) -> None:  # C10, D2
    """Between the new password and the new ID a request of the same session is nobody's, and ends nothing."""
    browser = await site.signed_in()
    await browser.json("PATCH", "/session", {"cart": ["apples"]})
    other_tab, handle, gate = browser.copy(), session_handle(site, browser), site.store.gate("rotate")
    site.clock.advance(1)
    changing = asyncio.ensure_future(change(browser))
    await gate.reached()
    page = await other_tab.get("/session")
    if moment == "with the record read before it":
        late = site.store.gate("destroy")
        again = asyncio.ensure_future(other_tab.get("/"))
        gate.open()
        await changing
        late.open()
        await again
    else:
        gate.open()
        await changing
    await site.sessions.drain()

    assert (b'"user": null' in page.body, page.headers.get_list("Set-Cookie")) == (True, [])
    assert (session_handle(site, browser), await user_of(browser)) == (handle, "alice")
    assert (await browser.json("GET", "/session"))[1]["data"] == {"cart": ["apples"]}


@pytest.mark.gen_test
async def test_nothing_is_left_of_the_other_sessions(site: Site) -> None:  # B4, I1, I9
    """Their records go at once, and each is told of, with the address of whoever changed it."""
    browser, others = await site.signed_in(), [await site.signed_in() for _ in range(2)]
    site.clock.advance(1)
    site.events.clear()
    await change(browser)

    assert [record.handle for record in await site.records()] == [session_handle(site, browser)]
    ended = [(e.handle, e.reason, e.address) for e in site.events if e.kind is Kind.DESTROYED]
    assert sorted(ended) == sorted((session_handle(site, each), "revoked", "127.0.0.1") for each in others)


@pytest.mark.parametrize("moment", ["before the change", "between the change and the new ID"])
@pytest.mark.gen_test
async def test_who_signs_out_meanwhile_stays_signed_out(moment: str, open_gated: OpenGated) -> None:  # C5, D1
    """The password is changed, and the answer says both; nobody is signed in."""
    site, gates = open_gated()
    browser = await site.signed_in()
    tab = browser.copy()
    if moment == "before the change":
        gate = Gate()
        gates.change.append(gate)
    else:
        gate = site.store.gate("rotate")
    site.clock.advance(1)
    changing = asyncio.ensure_future(change(browser))
    await gate.reached()
    out = await tab.json("POST", "/logout", {})
    gate.open()
    response = await changing

    assert (out[0], response.code) == (204, 409)
    assert b"Your password was changed, and you were signed out." in response.body
    assert (await user_of(browser), await site.records()) == (None, [])
    assert await opens(site, NEW)


@pytest.mark.gen_test
async def test_password_managers_find_the_page(site: Site) -> None:
    """The well-known address leads there, signed in or not, and asks no store."""
    site.store.calls.clear()
    response = await site.browser().get("/.well-known/change-password")

    assert (response.code, response.headers["Location"]) == (303, PAGE)
    assert site.store.calls.total() == 0


@pytest.mark.gen_test
async def test_a_sign_in_by_a_clock_that_was_ahead_ends_as_well(site: Site) -> None:  # C10 B6
    """The clock is set back before the password is changed, by a command that reaches no store."""
    site.clock.advance(3600)
    ahead = await site.signed_in()
    site.clock.advance(-3600)
    before = (await ahead.json("GET", "/session"))[1]["user"]
    now_ms = site.sessions.now_ms()
    await site.context.accounts.set_password("alice", NEW, verified_ms=now_ms)

    assert before == "alice"
    assert (await ahead.json("GET", "/session"))[1]["user"] is None
