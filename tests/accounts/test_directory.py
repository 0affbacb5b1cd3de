"""Accounts: names, sign-in without telling who exists, and a file that may change at any moment."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import argon2
import pytest

from stormcellar.accounts.directory import Account, AccountFile, FileAccounts, MemoryAccounts, canonical_name
from stormcellar.accounts.passwords import PasswordChecker, hash_password
from stormcellar.errors import Busy

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
NEWER = argon2.PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
HASH = hash_password("right", CHEAP)


class CountingHasher(argon2.PasswordHasher):
    """Counts what it does."""

    def __init__(self, *, time_cost: int = 1) -> None:
        super().__init__(time_cost=time_cost, memory_cost=8, parallelism=1)
        self.verified = 0
        self.hashed = 0

    def hash(self, *args: Any, **kwargs: Any) -> str:
        """Count, and hash."""
        self.hashed += 1
        return super().hash(*args, **kwargs)

    def verify(self, *args: Any, **kwargs: Any) -> Any:
        """Count, and verify."""
        self.verified += 1
        return super().verify(*args, **kwargs)


def checker(hasher: argon2.PasswordHasher = CHEAP) -> PasswordChecker:
    """Return a checker that costs little."""
    return PasswordChecker(argon2_hasher=hasher)


def account(valid_after_ms: int = 0, *, disabled: bool = False, hashed: str = HASH) -> Account:
    """Return an account whose password is `right`."""
    return Account(hashed, valid_after_ms, disabled)


def write(path: Path, accounts: Mapping[str, Account]) -> Path:
    """Replace the account file by one with *accounts*."""

    def change(before: dict[str, Account]) -> None:
        before.clear()
        before.update(accounts)

    AccountFile(path).edit(change)
    return path


def spoil(path: Path, content: str | bytes) -> None:
    """Put something else in the place of the account file, private as it was."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)


# --- names ---


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("alice", "alice"),
        ("Alice", "alice"),
        ("ALICE", "alice"),
        ("\uff41\uff4c\uff49\uff43\uff45", "alice"),
        ("\N{KELVIN SIGN}ate", "kate"),
        ("\N{LATIN SMALL LIGATURE FI}ona", "fiona"),
        ("a.b_c@d+e-f0", "a.b_c@d+e-f0"),
        ("stra\u00dfe", "strasse"),
        ("x" * 64, "x" * 64),
        # A telephone adds a space after a word that it completes; a copied name may bring more along.
        *((typed, "alice") for typed in ("alice ", " Alice", "alice\n", "alice\t", "\xa0alice")),
    ],
)
def test_ways_to_type_a_name(typed: str, name: str) -> None:
    """Case, width, compatibility forms and white space around the name make no difference."""
    assert canonical_name(typed) == name
    assert canonical_name(name) == name


@pytest.mark.parametrize(
    "typed",
    [
        *("", " ", "al ice", "al\tice", "alice\0", "alice \u200b"),
        *("x" * 65, "x" * 1_000_000, "\N{LATIN SMALL LIGATURE FFI}" * 64),
        # Turkish: a dotless i is another letter, a dotted capital one folds to two characters.
        *("al\u0131ce", "AL\u0130CE"),
        # Letters that look like Latin ones, what is not seen, what turns the text around.
        *("\u0430lice", "ali\u200bce", "alice\u202e", "\ufeffalice", "ali\u00adce", "ali\u0301ce"),
        *("$ne", "../alice", "a/b", "a\\b", "a,b", "a=b", "{alice}", "*", "al%69ce", "\ud800", "\u0661"),
    ],
)
def test_other_text_is_no_name(typed: str) -> None:
    """What no account can be called is None, so that it is as unknown as any other name."""
    assert canonical_name(typed) is None


# --- signing in ---


@pytest.mark.gen_test
async def test_the_right_password_gives_the_canonical_name() -> None:
    """However the name was typed, the user is the one of the account."""
    accounts = MemoryAccounts({"alice": account()}, checker=checker())

    assert await accounts.verify("\uff21LICE", "right") == "alice"


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice", "wrong"),
        ("nobody", "right"),
        ("disabled", "right"),
        ("disabled", "wrong"),
        ("not a name", "right"),
        ("", "right"),
        ("x" * 1000, "right"),
    ],
)
@pytest.mark.gen_test
async def test_every_wrong_sign_in_costs_one_verification(name: str, password: str) -> None:  # E1 E2
    """Unknown, disabled, impossible and wrong take the same work and give the same answer."""
    hasher = CountingHasher()
    known = {"alice": account(), "disabled": account(disabled=True)}
    accounts = MemoryAccounts(known, checker=checker(hasher))

    assert await accounts.verify(name, password) is None
    assert hasher.verified == 1


@pytest.mark.gen_test
async def test_full_queue_is_busy_for_everybody() -> None:  # E2 E3
    """With no room to hash, an unknown user is turned away just as a known one."""
    full = PasswordChecker(workers=1, queue=0)
    full._queue._free = 0
    accounts = MemoryAccounts({"alice": account()}, checker=full)

    for name in ("alice", "nobody"):
        with pytest.raises(Busy):
            await accounts.verify(name, "right")


def test_when_sign_ins_of_an_account_are_valid() -> None:  # C11
    """An account stands from a moment on; a disabled or unknown one stands never."""
    known = {"alice": account(1_000), "disabled": account(1_000, disabled=True)}
    accounts = MemoryAccounts(known, checker=checker())

    assert [accounts.valid_after(user) for user in ("alice", "disabled", "nobody", "Alice")] == [
        1_000,
        None,
        None,
        None,
    ]


def test_a_hash_is_in_no_representation() -> None:  # L8
    """A log line that shows an account shows no hash."""
    assert repr(account()) == "Account(valid_after_ms=0, disabled=False, id='')"


# --- new parameters ---


@pytest.mark.gen_test
async def test_hash_of_old_parameters_is_renewed_once(tmp_path: Path) -> None:  # E4
    """A sign-in stores the hash anew and ends no session; the next one has nothing to do."""
    path = write(tmp_path / "accounts.json", {"alice": account(1_000)})
    hasher = CountingHasher(time_cost=2)
    accounts = FileAccounts(path, checker=checker(hasher))

    signed_in = await asyncio.gather(*(accounts.verify("alice", "right") for _ in range(5)))

    stored = AccountFile(path).read()["alice"]
    assert signed_in == ["alice"] * 5
    assert not NEWER.check_needs_rehash(stored.hash)
    assert NEWER.verify(stored.hash, "right")
    assert (stored.valid_after_ms, stored.disabled) == (1_000, False)
    before = AccountFile(path).stamp(), hasher.hashed
    assert await accounts.verify("alice", "right") == "alice"
    assert (AccountFile(path).stamp(), hasher.hashed) == before


@pytest.mark.gen_test
async def test_wrong_password_renews_nothing(tmp_path: Path) -> None:
    """Only who knows the password gives it a new hash."""
    path = write(tmp_path / "accounts.json", {"alice": account()})
    accounts = FileAccounts(path, checker=checker(NEWER))

    assert await accounts.verify("alice", "wrong") is None
    assert AccountFile(path).read() == {"alice": account()}


@pytest.mark.parametrize("meanwhile", ["changed", "removed", "disabled"])
@pytest.mark.gen_test
async def test_renewal_never_undoes_a_change(tmp_path: Path, meanwhile: str) -> None:  # E4
    """A password changed while the old one was being hashed anew stays changed; who is removed stays so."""
    changes = {
        "changed": {"alice": account(2_000, hashed=hash_password("other", CHEAP))},
        "removed": {"bob": account()},
        "disabled": {"alice": account(2_000, disabled=True)},
    }
    path = write(tmp_path / "accounts.json", {"alice": account(1_000)})
    accounts = FileAccounts(path, checker=checker(NEWER))
    renew = accounts._checker.hash

    async def hash_late(password: str) -> str:
        hashed = await renew(password)
        write(path, changes[meanwhile])
        return hashed

    accounts._checker.hash = hash_late  # type: ignore[method-assign]

    await accounts.verify("alice", "right")

    after = AccountFile(path).read()
    assert {name: (a.valid_after_ms, a.disabled) for name, a in after.items()} == {
        name: (a.valid_after_ms, a.disabled) for name, a in changes[meanwhile].items()
    }
    if meanwhile != "disabled":
        assert after == changes[meanwhile]


@pytest.mark.gen_test
async def test_renewal_that_finds_no_room_can_wait() -> None:  # E3 E4
    """The right password signs in also where there is no room to hash it anew."""
    full = checker(NEWER)

    async def busy(password: str) -> str:
        raise Busy("full")

    full.hash = busy  # type: ignore[method-assign]
    accounts = MemoryAccounts({"alice": account()}, checker=full)

    assert await accounts.verify("alice", "right") == "alice"


@pytest.mark.gen_test
async def test_renewal_that_cannot_be_stored_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only disk costs a log line, without the hash, not the sign-in."""
    path = write(tmp_path / "accounts.json", {"alice": account()})
    accounts = FileAccounts(path, checker=checker(NEWER))

    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(AccountFile, "edit", fail)

    assert await accounts.verify("alice", "right") == "alice"
    assert caplog.messages == [f"could not store a renewed password hash: {path}: Read-only file system"]


@pytest.mark.gen_test
async def test_memory_accounts_renew_too() -> None:
    """A hash in memory is replaced there."""
    accounts = MemoryAccounts({"alice": account()}, checker=checker(NEWER))
    await accounts.verify("alice", "right")

    assert not NEWER.check_needs_rehash(accounts._accounts["alice"].hash)


# --- the file ---


def test_file_is_private_and_says_its_version(tmp_path: Path) -> None:
    """The file is mode 0600, and what was written is what is read."""
    path = write(tmp_path / "data" / "accounts.json", {"bob": account(5, disabled=True), "alice": account()})

    content = json.loads(path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o600
    assert (content["version"], list(content["accounts"])) == (1, ["alice", "bob"])
    assert AccountFile(path).read() == {"alice": account(), "bob": account(5, disabled=True)}


def test_edit_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    """An edit without effect does not make every process read the file again."""
    path = write(tmp_path / "accounts.json", {"alice": account()})
    before = AccountFile(path).stamp()

    AccountFile(path).edit(lambda accounts: None)

    assert AccountFile(path).stamp() == before


def test_edit_that_fails_changes_nothing(tmp_path: Path) -> None:
    """What an edit did before it raised is not kept, and the lock is free again."""
    path = write(tmp_path / "accounts.json", {"alice": account()})

    def fail(accounts: dict[str, Account]) -> None:
        accounts.clear()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        AccountFile(path).edit(fail)

    AccountFile(path).edit(lambda accounts: accounts.update(bob=account()))
    assert sorted(AccountFile(path).read()) == ["alice", "bob"]
    assert sorted(os.listdir(tmp_path)) == [".accounts.json.lock", "accounts.json"]


def test_edits_wait_for_each_other(tmp_path: Path) -> None:
    """Of edits that begin together none is lost: the second reads what the first has written."""
    path = tmp_path / "accounts.json"
    inside, go_on = threading.Event(), threading.Event()

    def slowly(accounts: dict[str, Account]) -> None:
        inside.set()
        assert go_on.wait(30)
        accounts["alice"] = account()

    first = threading.Thread(target=AccountFile(path).edit, args=[slowly])
    first.start()
    assert inside.wait(30)
    second = threading.Thread(target=AccountFile(path).edit, args=[lambda found: found.update(bob=account())])
    second.start()
    go_on.set()
    first.join(30)
    second.join(30)

    assert sorted(AccountFile(path).read()) == ["alice", "bob"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        '{"version": 2, "accounts": {}}',
        '{"version": 1}',
        '{"version": 1, "accounts": []}',
        '{"version": 1, "accounts": {"alice": null}}',
        '{"version": 1, "accounts": {"alice": {}}}',
        '{"version": 1, "accounts": {"alice": {"hash": "HASH"}}}',
        '{"version": 1, "accounts": {"alice": {"hash": "HASH", "valid_after_ms": "0"}}}',
        '{"version": 1, "accounts": {"alice": {"hash": "HASH", "valid_after_ms": true}}}',
        '{"version": 1, "accounts": {"alice": {"hash": "HASH", "valid_after_ms": 0, "disabled": "no"}}}',
        '{"version": 1, "accounts": {"alice": {"hash": "HASH", "valid_after_ms": 0, "admin": true}}}',
        '{"version": 1, "accounts": {"alice": {"hash": "", "valid_after_ms": 0}}}',
        '{"version": 1, "accounts": {"alice": {"hash": "plain text", "valid_after_ms": 0}}}',
        '{"version": 1, "accounts": {"alice": {"hash": null, "valid_after_ms": 0}}}',
        '{"version": 1, "accounts": {"Alice": {"hash": "HASH", "valid_after_ms": 0}}}',
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_other_content_is_no_account_file(tmp_path: Path, content: str | bytes) -> None:
    """Whatever stands there instead, the answer is one line with the file's name and no hash."""
    path = tmp_path / "accounts.json"
    spoil(path, content.replace("HASH", HASH) if isinstance(content, str) else content)

    with pytest.raises(ValueError) as caught:
        AccountFile(path).read()

    message = str(caught.value)
    assert message.startswith(f"{path} is not an account file (")
    assert "\n" not in message and HASH not in message and "plain text" not in message


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_account_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Hashes that others may read are told, at the start, with what to do."""
    path = write(tmp_path / "accounts.json", {"alice": account()})
    path.chmod(mode)

    with pytest.raises(ValueError, match=f"is accessible to other users: chmod 600 {path}"):
        FileAccounts(path, checker=checker())


def test_no_file_is_no_accounts(tmp_path: Path) -> None:
    """Before the first account there need be no file."""
    accounts = FileAccounts(tmp_path / "accounts.json", checker=checker())

    assert accounts.valid_after("alice") is None


# --- a file that changes while the server runs ---


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: write(path, {"alice": account(2_000)}), 2_000),
        (lambda path: write(path, {"alice": account(2_000, disabled=True)}), None),
        (lambda path: write(path, {"bob": account()}), None),
    ],
)
def test_change_holds_for_the_next_question(
    tmp_path: Path, change: Change, expected: int | None
) -> None:  # C10 C11
    """No request after a change by another process is answered by what stood before."""
    path = write(tmp_path / "accounts.json", {"alice": account(1_000)})
    accounts = FileAccounts(path, checker=checker())
    before = accounts.valid_after("alice")

    change(path)

    assert (before, accounts.valid_after("alice")) == (1_000, expected)


def test_revision_changes_with_the_accounts_alone(tmp_path: Path) -> None:
    """It is the same object until another process has changed an account, also if the file was damaged."""
    path = write(tmp_path / "accounts.json", {"alice": account(1_000)})
    accounts = FileAccounts(path, checker=checker())
    first = accounts.revision()
    same = accounts.revision()
    spoil(path, "{")
    damaged = accounts.revision()
    write(path.with_name("other"), {"alice": account(2_000)}).replace(path)

    assert first is same is damaged
    assert accounts.revision() is not first


@pytest.mark.gen_test
async def test_revision_changes_with_a_password_in_this_process() -> None:
    """Accounts in memory are replaced as well."""
    accounts = MemoryAccounts({"alice": account()}, checker=checker())
    first = accounts.revision()

    await accounts.set_password("alice", "another long password", verified_ms=1)

    assert accounts.revision() is not first


def test_first_account_is_noticed(tmp_path: Path) -> None:
    """A server started without a file finds the one made later."""
    accounts = FileAccounts(tmp_path / "accounts.json", checker=checker())
    write(tmp_path / "accounts.json", {"alice": account(1_000)})

    assert accounts.valid_after("alice") == 1_000


def test_first_account_ends_what_stood_in_for_it(tmp_path: Path) -> None:  # E18
    """Accounts that hold until there is a file are gone with the first real one, and do not come back."""
    path = tmp_path / "accounts.json"
    accounts = FileAccounts(path, checker=checker(), until_made={"demo": account(1_000)})
    before = accounts.valid_after("demo")
    write(path, {"alice": account(2_000)})
    during = accounts.valid_after("demo"), accounts.valid_after("alice")
    write(path, {})

    assert (before, during) == (1_000, (None, 2_000))
    assert (accounts.valid_after("demo"), accounts.valid_after("alice")) == (None, None)


def test_nothing_stands_in_for_a_file_without_accounts(tmp_path: Path) -> None:  # E18
    """A file that holds no account is a file all the same."""
    path = write(tmp_path / "accounts.json", {"alice": account()})
    write(path, {})
    accounts = FileAccounts(path, checker=checker(), until_made={"demo": account()})

    assert accounts.valid_after("demo") is None


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda path: spoil(path, "{"),
        lambda path: spoil(path, '{"version": 1, "accounts": {"alice": 7}}'),
        lambda path: path.unlink(),
        lambda path: (write(path, {"bob": account()}), path.chmod(0o644)),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_spoiled_file_keeps_the_accounts_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoiled: Change
) -> None:
    """A slip of an editor signs nobody out; it is logged once, and mending it is noticed."""
    path = write(tmp_path / "accounts.json", {"alice": account(1_000)})
    accounts = FileAccounts(path, checker=checker())
    spoiled(path)

    assert [accounts.valid_after("alice") for _ in range(5)] == [1_000] * 5
    assert [(r.levelno, r.getMessage().startswith("accounts unchanged: ")) for r in caplog.records] == [
        (logging.ERROR, True)
    ]
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    write(path, {"alice": account(2_000)})
    assert accounts.valid_after("alice") == 2_000


def test_mode_that_was_mended_is_noticed(tmp_path: Path) -> None:
    """What the logged advice says is enough: the file need not be written again."""
    path = write(tmp_path / "accounts.json", {"alice": account(1_000)})
    accounts = FileAccounts(path, checker=checker())
    write(path, {"alice": account(2_000)})
    path.chmod(0o644)
    before = accounts.valid_after("alice")

    path.chmod(0o600)

    assert (before, accounts.valid_after("alice")) == (1_000, 2_000)


@pytest.mark.gen_test
async def test_password_changed_in_the_queue_is_wrong(tmp_path: Path) -> None:  # C10
    """A sign-in that waited for its turn does not pass with a hash that was replaced meanwhile."""
    path = write(tmp_path / "accounts.json", {"alice": account(1_000)})
    waiting = checker()
    matches = waiting.verify

    async def verify_late(stored: str | None, password: str) -> bool:
        matched = await matches(stored, password)
        write(path, {"alice": account(2_000, hashed=hash_password("new", CHEAP))})
        return matched

    waiting.verify = verify_late  # type: ignore[method-assign]
    accounts = FileAccounts(path, checker=waiting)

    assert await accounts.verify("alice", "right") is None


@pytest.mark.gen_test
async def test_change_is_noticed_by_a_sign_in_too(tmp_path: Path) -> None:
    """A new password counts for the next sign-in, without a request of anybody signed in before."""
    path = write(tmp_path / "accounts.json", {"alice": account()})
    accounts = FileAccounts(path, checker=checker())
    write(path, {"alice": account(hashed=hash_password("new", CHEAP))})

    assert await accounts.verify("alice", "right") is None
    assert await accounts.verify("alice", "new") == "alice"


def test_an_account_made_elsewhere_is_not_taken_for_removed(tmp_path: Path) -> None:
    """Saying "no such account" ends a session for good, so the file is looked at first."""  # C11
    path = tmp_path / "accounts.json"
    file = AccountFile(path)
    file.edit(lambda accounts: accounts.update(ada=account(1_000, disabled=True)))
    behind = FileAccounts(path, checker=checker())
    assert behind.valid_after("ada") is None

    file.edit(lambda accounts: accounts.update(ada=account(2_000), bob=account(3_000)))

    assert (behind.valid_after("ada"), behind.valid_after("bob")) == (2_000, 3_000)


def test_file_that_cannot_be_read_for_a_moment_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # C11
    """A change that came while no file could be opened holds as soon as one can; the log has one line."""
    path = tmp_path / "accounts.json"
    file = AccountFile(path)
    file.edit(lambda accounts: accounts.update(alice=Account(HASH, valid_after_ms=1)))
    accounts = FileAccounts(path, checker=PasswordChecker(argon2_hasher=CHEAP))
    file.edit(lambda accounts: accounts.update(alice=Account(HASH, valid_after_ms=1, disabled=True)))

    with monkeypatch.context() as patch:
        patch.setattr(AccountFile, "find", _no_more_files)
        during = [accounts.valid_after("alice") for _ in range(3)]

    assert during == [1, 1, 1]
    assert accounts.valid_after("alice") is None
    assert [record.getMessage() for record in caplog.records] == [
        f"accounts unchanged: {path}: Too many open files"
    ]


def _no_more_files(self: AccountFile) -> dict[str, Account]:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(self.path))


def test_file_that_is_gone_for_a_moment_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # C11
    """An editor that removes and writes it again, between the look and the reading, ends nobody's session."""
    path = tmp_path / "accounts.json"
    file = AccountFile(path)
    file.edit(lambda accounts: accounts.update(alice=Account(HASH, valid_after_ms=1)))
    accounts = FileAccounts(path, checker=PasswordChecker(argon2_hasher=CHEAP))
    content = path.read_bytes()
    looked = AccountFile.stamp

    def look_then_remove(self: AccountFile) -> Any:
        path.write_bytes(content + b" ")
        stamp = looked(self)
        path.unlink()
        return stamp

    with monkeypatch.context() as patch:
        patch.setattr(AccountFile, "stamp", look_then_remove)

        assert accounts.valid_after("alice") == 1
