"""Cookies of a domain and host names of this machine, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from stormcellar.accounts.account_file import Account, AccountFile
from tests.support.certificates import Authority
from tests.support.chromium import Chromium
from tests.support.running import Running
from tests.support.site import CHEAP, PASSWORD

OpenServer = Callable[..., int]


@pytest.fixture
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenServer]:
    """A function that starts a server with an account, and returns its port."""
    running: list[Running] = []

    def start(*flags: str) -> int:
        directory = tmp_path_factory.mktemp("server")
        account = Account(CHEAP.hash(PASSWORD), valid_after_ms=0)
        AccountFile(directory / "data/accounts.json").edit(lambda accounts: accounts.update(alice=account))
        running.append(Running(directory, *flags))
        return int(running[-1].base().rpartition(":")[2])

    yield start
    for each in running:
        each.__exit__()


@pytest.fixture
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The options for TLS."""
    return Authority(tmp_path_factory.mktemp("tls")).issue().flags


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests."""
    rules = "host-resolver-rules=MAP *.example.org 127.0.0.1"
    with Chromium(tmp_path_factory.mktemp("profile"), "", rules) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Chromium) -> Chromium:
    """It without cookies."""
    chromium.forget()
    return chromium


def shown(browser: Chromium, url: str) -> str:
    """Return the heading of the page at *url*."""
    browser.driver.get(url)
    return browser.heading


def test_sibling_hosts_share_a_session(
    open_server: OpenServer, tls: tuple[str, ...], browser: Chromium
) -> None:  # A6
    """Signed in at one host of the domain means signed in at the others; so does signed out."""
    hosts = "login.example.org,wiki.example.org"
    port = open_server(*tls, "--cookie-domain=example.org", f"--allowed-hosts={hosts}")
    login, wiki = (f"https://{host}:{port}" for host in hosts.split(","))
    browser.base = login
    browser.sign_in("alice", PASSWORD)
    cookies = browser.cookies()
    at_wiki = shown(browser, f"{wiki}/")
    browser.press("Sign out")
    left = browser.cookies()
    at_login = shown(browser, f"{login}/account/sessions")

    names = ("__Secure-id", "__Secure-id-device")
    assert {name: cookie["domain"] for name, cookie in cookies.items()} == dict.fromkeys(
        names, ".example.org"
    )
    assert (at_wiki, at_login) == ("Hello, alice", "Sign in")
    assert left.keys() == {"__Secure-id-device"}


def test_cookie_from_before_the_domain_was_set_does_no_harm(
    open_server: OpenServer, tls: tuple[str, ...], browser: Chromium
) -> None:  # A7
    """The browser sends both; each server reads its own."""
    before = open_server(*tls)
    after = open_server(*tls, "--cookie-domain=example.org", "--allowed-hosts=login.example.org")
    old, new = (f"https://login.example.org:{port}" for port in (before, after))
    browser.base = old
    browser.sign_in("alice", PASSWORD)
    browser.base = new
    browser.sign_in("alice", PASSWORD)
    cookies = browser.cookies().keys()
    headings = shown(browser, f"{old}/"), shown(browser, f"{new}/")

    assert cookies == {"__Host-id", "__Host-id-device", "__Secure-id", "__Secure-id-device"}
    assert headings == ("Hello, alice", "Hello, alice")


SPELLINGS = {
    "LOCALHOST": "localhost",
    "localhost.": "localhost.",
    "app.localhost": "app.localhost",
    "127.1": "127.0.0.1",
    "2130706433": "127.0.0.1",
    "127.0.0.1.": "127.0.0.1",
}


def test_every_spelling_of_this_machine_signs_in(open_server: OpenServer, browser: Chromium) -> None:  # A5
    """The browser replaces some of them before it sends them; the server knows the rest."""
    port, found = open_server(), {}
    for typed in SPELLINGS:
        browser.base = f"http://{typed}:{port}"
        browser.forget()
        browser.sign_in("alice", PASSWORD)
        found[typed] = browser.heading, browser.script("return location.hostname")

    assert found == {typed: ("Hello, alice", sent) for typed, sent in SPELLINGS.items()}
