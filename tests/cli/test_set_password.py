"""A new password: when it is taken, what it ends, and what may happen while it is stored."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import argon2
import pytest

from stormcellar.accounts import account_file
from stormcellar.accounts.account_file import Account, AccountFile
from stormcellar.accounts.directory import FileAccounts, MemoryAccounts
from stormcellar.accounts.passwords import PasswordChecker, hash_password
from stormcellar.errors import Busy, PasswordRefused, SignInRevoked
from stormcellar.private_files import replace_private
from tests.support.fakes import START_S, Clock

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
OLD, NEW = "the old password", "a new password"
HASH = hash_password(OLD, CHEAP)
START_MS = int(START_S * 1000)

Directory = Callable[..., MemoryAccounts]


@pytest.fixture(params=["memory", "file"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Directory:
    """A function that opens a directory in which Alice has the old password."""

    def open_one(
        clock: Clock, *, checker: PasswordChecker | None = None, **changes: object
    ) -> MemoryAccounts:
        alice = replace(Account(HASH, valid_after_ms=0), **changes)  # type: ignore[arg-type]
        checker = checker or PasswordChecker(argon2_hasher=CHEAP)
        if request.param == "memory":
            return MemoryAccounts({"alice": alice}, checker=checker, clock=clock)
        return FileAccounts(write(tmp_path, alice), checker=checker, clock=clock)

    return open_one


def write(directory: Path, alice: Account) -> Path:
    """Write an account file with one account."""
    path = directory / "accounts.json"
    AccountFile(path).edit(lambda accounts: accounts.update(alice=alice))
    return path


@pytest.mark.gen_test
async def test_new_password_replaces_the_old_one(directory: Directory) -> None:  # C10
    """From then on the new one signs in, the old one does not, and no earlier sign-in counts."""
    clock = Clock()
    accounts = directory(clock)
    verified_ms = int(clock() * 1000)
    clock.advance(1)

    after_ms = await accounts.set_password("alice", NEW, verified_ms=verified_ms)

    assert after_ms == accounts.valid_after("alice") == verified_ms + 1000
    assert await accounts.verify("alice", OLD) is None
    assert await accounts.verify("alice", NEW) == "alice"


@pytest.mark.parametrize("later_s", [0.0, -3600.0])
@pytest.mark.gen_test
async def test_moment_is_after_the_proof_whatever_the_clock_says(
    directory: Directory, later_s: float
) -> None:  # C10
    """In the same millisecond, or with a clock set back, the sign-in that proved the old password ends."""
    clock = Clock()
    accounts = directory(clock)
    clock.advance(later_s)

    assert await accounts.set_password("alice", NEW, verified_ms=START_MS) == START_MS + 1


@pytest.mark.parametrize(
    "changes",
    [{"disabled": True}, {"valid_after_ms": START_MS}, {"valid_after_ms": START_MS + 1}],
    ids=["disabled", "changed then", "changed since"],
)
@pytest.mark.gen_test
async def test_proof_that_no_longer_counts_is_refused(
    directory: Directory, changes: dict[str, object]
) -> None:  # C10 C11
    """Who proved their password before the account was disabled or changed has proved nothing."""
    accounts = directory(Clock(), **changes)
    before = dict(accounts._current())

    with pytest.raises(SignInRevoked):
        await accounts.set_password("alice", NEW, verified_ms=START_MS)

    assert accounts._current() == before


@pytest.mark.gen_test
async def test_unknown_account_is_refused(directory: Directory) -> None:  # C11
    """There is nothing to give a password to, and no account is made."""
    accounts = directory(Clock())

    with pytest.raises(SignInRevoked):
        await accounts.set_password("nobody", NEW, verified_ms=START_MS)

    assert list(accounts._current()) == ["alice"]


@pytest.mark.gen_test
async def test_weak_password_costs_no_hash(directory: Directory) -> None:  # E17
    """A weak password is refused before anything is hashed, and nothing changes."""
    full = PasswordChecker(workers=1, queue=0)
    full._queue._free = 0
    accounts = directory(Clock(), checker=full)

    with pytest.raises(PasswordRefused, match="at least 8"):
        await accounts.set_password("alice", "short", verified_ms=START_MS)

    assert accounts.valid_after("alice") == 0


@pytest.mark.gen_test
async def test_full_queue_is_busy(directory: Directory) -> None:  # E3
    """A change waits in the same bounded queue as sign-ins; where there is no room nothing changes."""
    full = PasswordChecker(workers=1, queue=0)
    full._queue._free = 0
    accounts = directory(Clock(), checker=full)

    with pytest.raises(Busy):
        await accounts.set_password("alice", NEW, verified_ms=START_MS)

    assert accounts.valid_after("alice") == 0


@pytest.mark.gen_test
async def test_of_many_changes_at_once_one_is_made(directory: Directory) -> None:  # C10 D7
    """One proof of the old password is good for one change."""
    accounts = directory(Clock())
    tries = [f"password number {number}" for number in range(10)]

    results = await asyncio.gather(
        *(accounts.set_password("alice", each, verified_ms=START_MS) for each in tries),
        return_exceptions=True,
    )

    made = [each for each, result in zip(tries, results, strict=True) if result == START_MS + 1]
    assert len(made) == 1
    assert [type(result) for result in results].count(SignInRevoked) == 9
    assert await accounts.verify("alice", made[0]) == "alice"


# --- in a file, against other processes ---


class HeldWrite:
    """Stops whoever replaces a file, right before the new one gets the name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reached = threading.Event()
        self._go_on = threading.Event()
        monkeypatch.setattr(account_file, "replace_private", self._replace)

    def _replace(self, path: Path, text: str) -> None:
        self._reached.set()
        assert self._go_on.wait(30)
        replace_private(path, text)

    async def reached(self) -> None:
        """Wait until somebody is there."""
        assert await asyncio.to_thread(self._reached.wait, 30)

    def go_on(self) -> None:
        """Let everybody replace."""
        self._go_on.set()


@pytest.mark.gen_test
async def test_sign_in_while_the_change_is_written_does_not_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # C10
    """In another process, the old password still passes until the file is replaced; its sign-in ends then."""
    clock = Clock()
    path = write(tmp_path, Account(HASH, valid_after_ms=0))
    here, elsewhere = (
        FileAccounts(path, checker=PasswordChecker(argon2_hasher=CHEAP), clock=clock) for _ in range(2)
    )
    held = HeldWrite(monkeypatch)
    change = asyncio.create_task(here.set_password("alice", NEW, verified_ms=START_MS))
    await held.reached()
    clock.advance(5)
    signed_in_ms = int(clock() * 1000)
    passed = await elsewhere.verify("alice", OLD)
    held.go_on()

    after_ms = await change

    assert (passed, elsewhere.valid_after("alice")) == ("alice", after_ms)
    assert after_ms >= signed_in_ms


@pytest.mark.gen_test
async def test_two_processes_with_one_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # C10
    """The second waits for the first, then finds that what it goes by was changed."""
    path = write(tmp_path, Account(HASH, valid_after_ms=0))
    here, elsewhere = (
        FileAccounts(path, checker=PasswordChecker(argon2_hasher=CHEAP), clock=Clock()) for _ in range(2)
    )
    held = HeldWrite(monkeypatch)
    first = asyncio.create_task(here.set_password("alice", NEW, verified_ms=START_MS))
    await held.reached()
    second = asyncio.create_task(elsewhere.set_password("alice", "another password", verified_ms=START_MS))
    held.go_on()

    assert await first == START_MS + 1
    with pytest.raises(SignInRevoked):
        await second
    assert await elsewhere.verify("alice", NEW) == "alice"


@pytest.mark.gen_test
async def test_disk_that_is_full_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old password stays where the new one cannot be stored, and the caller is told."""
    accounts = FileAccounts(
        write(tmp_path, Account(HASH, valid_after_ms=0)),
        checker=PasswordChecker(argon2_hasher=CHEAP),
        clock=Clock(),
    )

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(account_file, "replace_private", fail)

    with pytest.raises(OSError, match="No space left"):
        await accounts.set_password("alice", NEW, verified_ms=START_MS)

    assert accounts.valid_after("alice") == 0
    assert await accounts.verify("alice", OLD) == "alice"


@pytest.mark.gen_test
async def test_account_that_stands_in_for_a_file_is_changed_in_memory(tmp_path: Path) -> None:
    """A demo account can try it out; no file is made of it."""
    accounts = FileAccounts(
        tmp_path / "accounts.json",
        checker=PasswordChecker(argon2_hasher=CHEAP),
        until_made={"demo": Account(HASH, valid_after_ms=0)},
        clock=Clock(),
    )

    await accounts.set_password("demo", NEW, verified_ms=START_MS)

    assert await accounts.verify("demo", OLD) is None
    assert await accounts.verify("demo", NEW) == "demo"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("is_alone", [True, False])
@pytest.mark.gen_test
async def test_accounts_without_a_file_change_only_where_no_other_process_has_them(
    is_alone: bool, tmp_path: Path
) -> None:  # D11
    """Of several processes each would have a password of its own, so they say that it stays."""
    accounts = FileAccounts(
        tmp_path / "none.json",
        checker=PasswordChecker(argon2_hasher=CHEAP),
        until_made={"demo": Account(HASH, valid_after_ms=0)},
        is_alone=is_alone,
    )
    if is_alone:
        await accounts.set_password("demo", NEW, verified_ms=START_MS)
    else:
        with pytest.raises(PasswordRefused, match="cannot be changed"):
            await accounts.set_password("demo", NEW, verified_ms=START_MS)

    assert await accounts.verify("demo", OLD if not is_alone else NEW) == "demo"
