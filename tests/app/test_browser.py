"""The whole server in a real browser, over TLS, as people use it and as others abuse it."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from stormcellar.accounts.account_file import Account, AccountFile
from tests.support.certificates import Authority, Files
from tests.support.chromium import NARROW, WIDE, Chromium, require
from tests.support.running import Running
from tests.support.site import CHEAP, PASSWORD

NEW = "a storm in the cellar"
USERS = ("alice", "bob", "carol")
DAY_S = 86_400


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate for this machine's names."""
    return Authority(tmp_path_factory.mktemp("tls")).issue()


@pytest.fixture(scope="module")
def base(certificate: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as an operator runs it, to which no sign-in is recent enough for what wants a recent one."""
    directory = tmp_path_factory.mktemp("server")
    account = Account(CHEAP.hash(PASSWORD), valid_after_ms=0)
    AccountFile(directory / "data/accounts.json").edit(
        lambda accounts: accounts.update(dict.fromkeys(USERS, account))
    )
    with Running(directory, *certificate.flags, "--remember=30d", "--reauth=1ms") as running:
        yield running.base().replace("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def chromium(base: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Chromium]:
    """A function that starts a Chromium with a profile of its own."""
    return lambda: Chromium(tmp_path_factory.mktemp("profile"), base)


@pytest.fixture(scope="module")
def first(chromium: Callable[[], Chromium]) -> Iterator[Chromium]:
    """One Chromium for all tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def second(chromium: Callable[[], Chromium]) -> Iterator[Chromium]:
    """Another one, as of somebody else."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(first: Chromium) -> Iterator[Chromium]:
    """The first without cookies, whose console has nothing to say of the CSP when the test is over."""
    first.forget()
    yield first
    assert first.complaints() == []


@pytest.fixture
def other(second: Chromium) -> Chromium:
    """The second without cookies."""
    second.forget()
    return second


def test_in_ci_nothing_of_this_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing skips a test at a desk, and fails it in CI."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="a browser is not installed"):
        require(None, "a browser")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="a browser is not installed"):
        require(None, "a browser")


# --- a person's way ---


def test_the_whole_journey(browser: Chromium) -> None:
    """From a page that needs a user through sign-in, a new password and sign-out to the new one at work."""
    browser.open("/account/sessions")
    assert (browser.heading, browser.path) == ("Sign in", "/login?next=%2Faccount%2Fsessions")
    browser.fill_in(username="alice", password="wrong")
    browser.press("Sign in")
    assert browser.find("[role=alert]").text == "The user name or the password is wrong. Try again."
    browser.fill_in(username="alice", password=PASSWORD)
    browser.press("Sign in")
    assert (browser.heading, browser.path) == ("Your sessions", "/account/sessions")
    assert "Chrome on Linux this session" in browser.text

    browser.press("Password")
    browser.fill_in(current=PASSWORD, new="password1")
    browser.press("Change password")
    assert browser.find("[role=alert]").text.startswith("This one is too common")
    browser.fill_in(current=PASSWORD, new=NEW)
    browser.press("Change password")
    assert browser.find("[role=status]").text.startswith("Your password was changed.")
    assert (browser.heading, browser.path) == ("Hello, alice", "/")

    browser.press("Sign out")
    assert (browser.heading, browser.path) == ("You are signed out", "/signed-out")
    browser.sign_in("alice", NEW)
    assert browser.heading == "Hello, alice"


def test_one_browser_signs_the_other_out(browser: Chromium, other: Chromium) -> None:
    """After the password once more; the other notices on its next page, and this one goes on."""
    other.sign_in("bob", PASSWORD)
    browser.sign_in("bob", PASSWORD)
    browser.press("Sessions")
    browser.press("Sign out all others")
    assert browser.heading == "Confirm your password"
    browser.fill_in(password="wrong")
    browser.press("Continue")
    assert browser.find("[role=alert]").text == "The password is wrong. Try again."
    browser.fill_in(password=PASSWORD)
    browser.press("Continue")

    assert (browser.path, browser.find("[role=status]").text) == (
        "/account/sessions",
        "All other sessions were signed out.",
    )  # C8
    other.open("/account/sessions")
    assert other.heading == "Sign in"
    browser.open("/")
    assert browser.heading == "Hello, bob"


def test_everything_can_be_done_by_keyboard(browser: Chromium) -> None:
    """Each step is reached with Tab, shows where it is, and is taken with Enter or Space."""
    browser.open("/login")

    def press(*keys: str) -> None:
        ActionChains(browser.driver).send_keys(*keys).perform()

    def go_to(label: str) -> None:
        for _ in range(20):
            press(Keys.TAB)
            focused = browser.driver.switch_to.active_element
            outline = focused.value_of_css_property("outline-style")
            assert (outline, focused.rect["x"] >= 0) == ("solid", True), focused.get_attribute("outerHTML")
            if focused.text == label:
                return
        raise AssertionError(f"Tab does not lead to {label!r}")

    press("carol", Keys.TAB, PASSWORD, Keys.TAB, Keys.SPACE)
    browser.leave(partial(press, Keys.ENTER))
    assert browser.heading == "Hello, carol"
    assert not browser.cookies()["__Host-id"]["session"]
    go_to("Skip to the content")
    press(Keys.ENTER)
    assert browser.script("return document.activeElement.id") == "main"
    browser.open("/")
    go_to("Sessions")
    browser.leave(partial(press, Keys.ENTER))
    go_to("Sign out")
    browser.leave(partial(press, Keys.ENTER))
    assert browser.heading == "You are signed out"


@pytest.fixture
def without_script(browser: Chromium) -> Iterator[None]:
    """The browser does not load our script."""
    browser.block("*/live.js*")
    yield
    browser.block()


@pytest.mark.usefixtures("without_script")
def test_the_end_of_the_session_is_warned_of(browser: Chromium) -> None:
    """Without a script: a banner two minutes before, another after it, each hidden until then."""
    browser.sign_in("carol", PASSWORD)
    # Then "at 23:12", or after noon "on 25 November at 00:12".
    assert "You will be signed out after 30 minutes without activity, and at the latest " in browser.text
    soon, over = browser.find("#idle-soon"), browser.find("#idle-over")
    shown = []
    for left_s in (130, 110, -10):
        # The clock that moves is the page's own; --idle is 30 minutes.
        browser.script(
            "document.getAnimations().forEach(each => each.currentTime = arguments[0])", 1e3 * (1800 - left_s)
        )
        shown.append((soon.is_displayed(), over.is_displayed()))

    assert shown == [(False, False), (True, False), (False, True)]  # B9
    browser.press("Continue")
    assert browser.heading == "Hello, carol"


# --- what a browser is told to keep, and to forget ---


def test_scripts_see_no_cookie(browser: Chromium) -> None:
    """They belong to this host alone, over TLS alone; that of the session ends with the browser."""
    browser.sign_in("carol", PASSWORD)
    cookies = browser.cookies()
    shown = {
        name: cookies["__Host-id"][name] for name in ("path", "secure", "httpOnly", "sameSite", "session")
    }

    assert browser.script("return document.cookie") == ""  # A4
    assert cookies.keys() == {"__Host-id", "__Host-id-device"}
    assert shown == {"path": "/", "secure": True, "httpOnly": True, "sameSite": "Lax", "session": True}  # A12


def test_keep_me_signed_in_keeps_the_cookie(browser: Chromium) -> None:
    """For as long as the box says."""
    browser.open("/login")
    assert "For 30 days, even after you close the browser." in browser.text
    browser.find("[name=remember]").click()
    browser.fill_in(username="carol", password=PASSWORD)
    browser.press("Sign in")
    cookie = browser.cookies()["__Host-id"]

    assert not cookie["session"]
    assert 29 * DAY_S < cookie["expires"] - time.time() <= 30 * DAY_S  # A12


def test_the_back_button_shows_nothing_private_after_sign_out(browser: Chromium) -> None:
    """However far back somebody goes at a computer that was left."""
    browser.sign_in("carol", PASSWORD)
    browser.open("/account/sessions")
    browser.press("Sign out")
    assert browser.cookies().keys() == {"__Host-id-device"}
    for _ in range(3):
        browser.driver.back()

        assert "carol" not in browser.driver.page_source  # C7
        assert "/account/sessions/" not in browser.driver.page_source


@pytest.mark.parametrize("page", ["/", "/account/sessions", "/account/password"])
def test_nor_does_it_show_the_very_page_of_the_sign_out(page: str, browser: Chromium) -> None:
    """Chromium keeps that one in spite of no-store, and would show it as it was."""
    browser.sign_in("carol", PASSWORD)
    browser.open(page)
    assert "Sign out" in browser.text
    browser.press("Sign out")
    browser.driver.back()

    assert "Sign out" not in browser.text  # C7
    assert "carol" not in browser.driver.page_source


# --- other sites ---

FORMS = ("/logout", "/login", "/account/password", "/account/sessions/revoke-others")


@pytest.fixture(scope="module")
def elsewhere(base: str, certificate: Files) -> Iterator[int]:
    """The port of another server of this machine, over TLS, whose page holds our forms."""
    names = ("username", "password", "current", "new")
    fields = "".join(f'<input name="{name}" value="x">' for name in names)
    page = "".join(
        f'<form method="post" action="{base}{action}">{fields}<button>{action}</button></form>'
        for action in FORMS
    )

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer with the page."""
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=partial(server.serve_forever, poll_interval=0.02)).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_form_of_another_site_fails(host: str, browser: Chromium, elsewhere: int) -> None:
    """From another port, where the cookie goes along, and from another host: nothing happens."""
    browser.sign_in("carol", PASSWORD)
    before = browser.cookies()["__Host-id"]["value"]
    answers = []
    for action in FORMS:
        browser.driver.get(f"https://{host}:{elsewhere}/")
        browser.press(action)
        answers.append((browser.path, browser.heading))

    assert answers == [(action, "Request refused") for action in FORMS]  # F1, F2
    assert browser.cookies()["__Host-id"]["value"] == before
    browser.open("/")
    assert browser.heading == "Hello, carol"


# --- every page, looked at by machines ---


def pages(browser: Chromium) -> Iterator[str]:
    """Go through every kind of page; yields the name of each while it is open."""
    for path in ("/", "/login", "/signed-out", "/nowhere"):
        browser.open(path)
        yield path
    browser.sign_in("carol", "wrong")
    yield "sign-in refused"
    browser.sign_in("carol", PASSWORD)
    for path in ("/", "/account/sessions", "/account/confirm", "/account/password", "/login"):
        browser.open(path)
        yield f"{path} of a user"
    browser.open("/account/password")
    browser.fill_in(current=PASSWORD, new="password1")
    browser.press("Change password")
    yield "new password refused"
    browser.block("*/live.js*")  # or it sets the time left again
    browser.open("/")
    browser.script("document.getAnimations().forEach(each => each.currentTime = arguments[0])", 1.75e6)
    yield "warning"
    browser.script("document.getAnimations().forEach(each => each.currentTime = arguments[0])", 1.85e6)
    yield "end"
    browser.block()


def test_every_page_is_accessible(browser: Chromium, other: Chromium) -> None:
    """No violation of any rule of axe-core, in light and in dark."""
    other.sign_in("carol", PASSWORD)
    found = []
    for name in pages(browser):
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            found += [(name, scheme, each) for each in browser.audit()]

    assert found == []


def test_the_audit_would_find_something(browser: Chromium) -> None:
    """A field without a label, and text that is hard to read, are reported."""
    browser.open("/login")
    browser.script("document.querySelector('label').remove()")
    browser.script("document.querySelector('h1').style.color = '#ddd'")
    browser.prefer("light")

    assert {line.partition(":")[0] for line in browser.audit()} == {"label", "color-contrast"}


def test_every_page_fits_a_narrow_screen(browser: Chromium) -> None:
    """Nothing is cut off, and nothing scrolls sideways, at 320 pixels."""
    browser.resize(NARROW)
    wide = [name for name in pages(browser) if browser.scrolls_sideways()]
    browser.resize(WIDE)

    assert wide == []


def test_light_and_dark_are_followed(browser: Chromium) -> None:
    """The page takes the side that the person prefers everywhere."""
    browser.open("/")
    grounds = []
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        grounds.append(browser.find("html").value_of_css_property("background-color"))

    assert grounds == ["rgba(242, 244, 247, 1)", "rgba(18, 23, 29, 1)"]


def test_the_console_would_tell_of_the_csp(first: Chromium) -> None:
    """A style that the policy forbids has no effect and is complained of, so its silence elsewhere counts."""
    first.open("/")
    first.script(
        "const style = document.createElement('style'); style.textContent = 'h1 { color: red }';"
        "document.head.append(style)"
    )

    assert len(first.complaints()) == 1
    assert first.find("h1").value_of_css_property("color") != "rgba(255, 0, 0, 1)"
