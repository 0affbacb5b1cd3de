"""Accounts that a command in another process or a page changes: open sockets and streams of them end."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from stormcellar.accounts.directory import AccountFile, FileAccounts
from stormcellar.accounts.passwords import PasswordChecker
from stormcellar.stores import StoreUnavailable
from tests.cli.test_commands import NEW, command
from tests.runtime.test_drain import running
from tests.runtime.test_open_streams import Open
from tests.support.site import ACCOUNTS, CHEAP, PASSWORD, OpenSite, Site

WITHIN_S = 3.0


@pytest.fixture
def site(open_site: OpenSite, tmp_path: Path) -> Site:
    """A site whose accounts are in a file."""
    path = tmp_path / "accounts.json"
    AccountFile(path).edit(lambda accounts: accounts.update(ACCOUNTS))
    checker = PasswordChecker(argon2_hasher=CHEAP)
    return open_site(accounts=FileAccounts(path, checker=checker), checker=checker)


def last_event(opened: Open) -> tuple[str, str]:
    """Return the type of the last event of the stream, and its reason."""
    event, data = opened.events.get_nowait().decode().strip().split("\n")
    reason: str = json.loads(data.removeprefix("data: "))["reason"]
    return event, reason


@pytest.mark.parametrize("action", ["disable", "remove", "passwd"])
@pytest.mark.gen_test
async def test_command_ends_what_is_open(site: Site, tmp_path: Path, action: str) -> None:  # C10 C11 J3
    """Within seconds, although the store is down; those of others stay."""
    async with running(site, recheck="1h") as it:
        alice, bob = await Open(it).start("alice"), await Open(it).start("bob")
        it.store.fail["states"] = StoreUnavailable("states")

        await command(tmp_path, action, "alice")
        since_s = time.monotonic()
        closing = await alice.closing()
        took_s = time.monotonic() - since_s
        await bob.socket.write_message("still here")
        answer = await asyncio.wait_for(bob.socket.read_message(), WITHIN_S)
        it.stop.set()
        await bob.closing()

    assert (closing, last_event(alice)) == ((4401, "account", 200), ("event: session_over", "account"))
    assert (answer, took_s < WITHIN_S) == ("still here", True)


@pytest.mark.gen_test
async def test_new_password_in_the_browser(site: Site) -> None:  # C10 J3 J5
    """Other browsers are signed out; this one has a new session ID, so its sockets connect again."""
    async with running(site, recheck="1h") as it:
        here, elsewhere = await Open(it).start(), await Open(it).start()
        page = "/account/password"
        answer = await here.browser.submit(page, page, current=PASSWORD, new=NEW)
        closing = [await each.closing() for each in (here, elsewhere)]

    assert answer.code == 303
    assert closing == [(4401, "replaced", 200), (4401, "signed_out", 200)]


@pytest.mark.gen_test
async def test_account_file_that_is_damaged_ends_nobody(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The accounts stay as they were; the next good file counts."""
    path = tmp_path / "accounts.json"
    good = path.read_text()
    async with running(site, recheck="1h") as it:
        alice = await Open(it).start()
        path.write_text("{")
        async with asyncio.timeout(WITHIN_S):
            while "accounts unchanged" not in caplog.text:  # noqa: ASYNC110  a log has no event
                await asyncio.sleep(0.01)
        await alice.socket.write_message("still here")
        during = await asyncio.wait_for(alice.socket.read_message(), WITHIN_S)
        path.write_text(good)
        await command(tmp_path, "disable", "alice")
        closing = await alice.closing()

    assert (during, closing) == ("still here", (4401, "account", 200))
