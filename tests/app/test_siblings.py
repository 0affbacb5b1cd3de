"""Two applications on sibling subdomains, in a real browser: what one of them clears, the other keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stormcellar.accounts.account_file import Account, AccountFile
from tests.support.certificates import Authority
from tests.support.chromium import Chromium
from tests.support.running import Running
from tests.support.site import CHEAP, PASSWORD

LOGIN, WIKI = "login.example.test", "wiki.example.test"


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The base URLs of two servers, each with its own accounts."""
    files = Authority(tmp_path).issue(LOGIN, WIKI)
    with ExitStack() as servers:
        found = {}
        for name in (LOGIN, WIKI):
            directory = tmp_path / name
            directory.mkdir()
            account = Account(CHEAP.hash(PASSWORD), valid_after_ms=0)
            AccountFile(directory / "data/accounts.json").edit(
                lambda accounts, account=account: accounts.update(carol=account)  # type: ignore[misc]
            )
            running = servers.enter_context(Running(directory, *files.flags, f"--allowed-hosts={name}"))
            found[name] = running.base().replace("127.0.0.1", name)
        yield found


@pytest.fixture
def chromium(tmp_path: Path, bases: dict[str, str]) -> Iterator[Chromium]:
    """A Chromium that finds both names on this machine."""
    resolver = "host-resolver-rules=MAP *.example.test 127.0.0.1"
    with Chromium(tmp_path / "profile", bases[LOGIN], resolver) as browser:
        yield browser


def test_a_sign_out_of_one_leaves_the_other_signed_in(chromium: Chromium, bases: dict[str, str]) -> None:
    """A cookie that the other application set stays, and so does what it stored and cached."""
    for base in bases.values():
        chromium.base = base
        chromium.sign_in("carol", PASSWORD)
    chromium.script("localStorage.setItem('draft', 'kept')")
    chromium.base = bases[LOGIN]
    chromium.open("/")
    chromium.script("localStorage.setItem('draft', 'private')")
    chromium.press("Sign out")
    assert chromium.heading == "You are signed out"
    chromium.wait(lambda: chromium.script("return localStorage.getItem('draft')") is None)  # C7
    chromium.open("/")
    assert chromium.heading == "Welcome"

    chromium.base = bases[WIKI]
    chromium.open("/")
    assert chromium.heading == "Hello, carol"  # C7
    assert chromium.script("return localStorage.getItem('draft')") == "kept"
