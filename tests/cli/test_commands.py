"""What a command in another process does to a server that runs: it holds for the very next request."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stormcellar.accounts.directory import AccountFile, FileAccounts
from stormcellar.accounts.passwords import PasswordChecker
from tests.support.fakes import Clock
from tests.support.running import ROOT, environment
from tests.support.site import ACCOUNTS, CHEAP, PASSWORD, OpenSite, Site, sign_in

NEW = "another long password"


@pytest.fixture
def site(open_site: OpenSite, tmp_path: Path) -> Site:
    """A site whose accounts are in a file, on a clock that starts where commands are."""
    path = tmp_path / "accounts.json"
    AccountFile(path).edit(lambda accounts: accounts.update(ACCOUNTS))
    clock, checker = Clock(time.time()), PasswordChecker(argon2_hasher=CHEAP)
    accounts = FileAccounts(path, checker=checker, clock=clock)
    return open_site(accounts=accounts, checker=checker, clock=clock)


async def command(directory: Path, action: str, name: str) -> None:
    """Run `accounts` as a process of its own."""
    given = ["--password-stdin"] if action == "passwd" else []
    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "run.py", "accounts", action, name, "--data-dir", str(directory), *given],
        input=NEW.encode(),
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment(),
        timeout=60,
        check=True,
    )


@pytest.mark.parametrize("action", ["disable", "remove", "passwd"])
@pytest.mark.gen_test
async def test_command_ends_sessions_for_the_next_request(
    site: Site, tmp_path: Path, action: str
) -> None:  # C10 C11
    """The first request after `disable`, `remove` or `passwd` is anonymous; others stay signed in."""
    alice, bob = await site.signed_in("alice"), await site.signed_in("bob")

    await command(tmp_path, action, "alice")

    users = [(await browser.json("GET", "/session"))[1]["user"] for browser in (alice, bob)]
    assert users == [None, "bob"]


@pytest.mark.gen_test
async def test_command_decides_which_password_signs_in_next(site: Site, tmp_path: Path) -> None:  # C10
    """Right after `accounts passwd` the old password is wrong and the new one right."""
    await command(tmp_path, "passwd", "alice")
    site.clock.now_s = time.time() + 1

    assert (await sign_in(site.browser(), "alice", PASSWORD)).code == 401
    assert (await sign_in(site.browser(), "alice", NEW)).code == 303
