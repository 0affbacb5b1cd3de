"""The ID of an account: another one with each change that ends earlier sign-ins, whatever the clock says."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import argon2
import pytest

from stormcellar.accounts.account_file import Account, AccountFile
from stormcellar.accounts.directory import FileAccounts, MemoryAccounts
from stormcellar.accounts.passwords import PasswordChecker, hash_password
from stormcellar.cli import accounts as command
from stormcellar.errors import SignInRevoked
from tests.support.fakes import START_S, Clock

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = hash_password("right", CHEAP)
START_MS = int(START_S * 1000)


class Command:
    """The command `accounts` on one file, with a clock that a test sets."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.clock = Clock()
        monkeypatch.setattr(command.time, "time", self.clock)
        monkeypatch.setattr(command, "_new_hash", lambda user, stdin: HASH)
        self.directory = FileAccounts(path, checker=PasswordChecker(argon2_hasher=CHEAP), clock=self.clock)

    def __call__(self, action: str, user: str = "alice") -> Account | None:
        """Apply *action* and return the account as it is stored afterwards."""
        command.run(action, self.path, user, password_stdin=True)
        return AccountFile(self.path).read().get(user)

    def id(self, user: str = "alice") -> str | None:
        """Return the ID that the server sees."""
        return self.directory.account_id(user)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command on a file that does not exist yet."""
    return Command(tmp_path / "accounts.json", monkeypatch)


@pytest.mark.parametrize("set_back_s", [0, 3600])
def test_account_made_again_is_another_one(run: Command, set_back_s: int) -> None:  # C11
    """Also if the clock was ahead when the first one was made: its sign-ins have the ID of that one."""
    run("add")
    first = run.id()
    run("remove")
    run.clock.advance(-set_back_s)
    during = run.id()
    run("add")

    assert first and run.id() and first != run.id()
    assert during is None


@pytest.mark.parametrize("set_back_s", [0, 3600])
def test_account_enabled_again_has_another_id(run: Command, set_back_s: int) -> None:  # C11
    """The sessions that ended when it was disabled stay ended, whatever the clock."""
    run("add")
    first = run.id()
    run("disable")
    disabled = run.id()
    run.clock.advance(-set_back_s)
    run("disable")
    run("enable")

    assert first and run.id() and first != run.id()
    assert disabled is None


@pytest.mark.gen_test
async def test_new_password_is_a_new_id(run: Command) -> None:  # C10
    """Set here or by the command; a renewed hash of the same password leaves the ID."""
    run("add")
    ids = [run.id()]
    run("passwd")
    ids.append(run.id())
    run.clock.advance(1)
    await run.directory.set_password("alice", "a new password", verified_ms=int(run.clock() * 1000))
    ids.append(run.id())
    newer = argon2.PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
    renewing = FileAccounts(run.path, checker=PasswordChecker(argon2_hasher=newer))
    signed_in = await renewing.verify("alice", "a new password")

    assert len({*ids}) == 3
    assert renewing.account_id("alice") == ids[-1]
    assert signed_in == "alice"
    assert not newer.check_needs_rehash(AccountFile(run.path).read()["alice"].hash)


def test_ids_are_random(run: Command) -> None:
    """No two accounts have the same."""
    made = [run("add", f"user{number}") for number in range(20)]

    assert len({account.id for account in made if account is not None}) == 20
    assert {len(account.id) for account in made if account is not None} == {16}


def test_times_never_move_back(run: Command) -> None:  # C10
    """Each change is later than the one before, also with a clock that runs backwards."""
    run("add")
    times = []
    for action in ("passwd", "disable", "enable", "passwd", "disable", "passwd", "enable"):
        run.clock.advance(-60)
        changed = run(action)
        assert changed is not None
        times.append(changed.valid_after_ms)

    assert times == sorted(set(times))
    assert times[0] > START_MS


def test_change_that_sets_an_earlier_time_is_stored_with_a_later_one(tmp_path: Path) -> None:  # C10
    """Whoever replaces an account does not have to take care of its time."""
    file = AccountFile(tmp_path / "accounts.json")
    file.edit(lambda accounts: accounts.update(alice=Account(HASH, START_MS)))

    changed = file.replace("alice", lambda _: Account(HASH, valid_after_ms=0), clock=lambda: 0.0)

    assert changed is not None and changed.valid_after_ms == START_MS + 1


def test_file_without_ids_is_read(tmp_path: Path) -> None:
    """Its accounts have an empty ID, which differs from that of every account made later."""
    path = tmp_path / "accounts.json"
    AccountFile(path).edit(lambda accounts: accounts.update(alice=Account(HASH, 0)))
    content = json.loads(path.read_bytes())
    del content["accounts"]["alice"]["id"]
    path.write_text(json.dumps(content))

    accounts = FileAccounts(path, checker=PasswordChecker(argon2_hasher=CHEAP))

    assert (accounts.account_id("alice"), accounts.account_id("nobody")) == ("", None)


@pytest.mark.parametrize("bad", [7, None, "x" * 65, "two words", "\ud800"])
def test_id_of_another_form_is_refused(tmp_path: Path, bad: object) -> None:
    """The error names the account."""
    path = tmp_path / "accounts.json"
    AccountFile(path).edit(lambda accounts: accounts.update(alice=Account(HASH, 0)))
    content = json.loads(path.read_bytes())
    content["accounts"]["alice"]["id"] = bad
    path.write_text(json.dumps(content))

    with pytest.raises(ValueError, match="a field of 'alice'"):
        AccountFile(path).read()


@pytest.mark.gen_test
async def test_account_replaced_while_its_password_is_checked_signs_nobody_in(tmp_path: Path) -> None:  # C11
    """Also if the other account is valid from the same moment."""
    before = Account(HASH, START_MS, id="one")
    accounts = MemoryAccounts({"alice": before}, checker=PasswordChecker(argon2_hasher=CHEAP))
    matches = accounts._checker.verify

    async def verify_late(stored: str | None, password: str) -> bool:
        matched = await matches(stored, password)
        accounts._accounts = {"alice": replace(before, id="other")}
        return matched

    accounts._checker.verify = verify_late  # type: ignore[method-assign]

    assert await accounts.verify("alice", "right") is None


@pytest.mark.gen_test
async def test_account_replaced_while_a_password_is_hashed_keeps_its_own(tmp_path: Path) -> None:  # C11
    """A new password for the account that was removed is not given to the one that has its name now."""
    before = Account(HASH, 0, id="one")
    accounts = MemoryAccounts({"alice": before}, checker=PasswordChecker(argon2_hasher=CHEAP))
    change = asyncio.create_task(accounts.set_password("alice", "a new password", verified_ms=START_MS))
    await asyncio.sleep(0)
    accounts._accounts = {"alice": replace(before, id="other")}

    with pytest.raises(SignInRevoked):
        await change
