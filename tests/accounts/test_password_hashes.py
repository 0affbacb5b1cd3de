"""A wrong sign-in takes the work of some account; a hash that costs too much is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import argon2
import pytest

from stormcellar.accounts.account_file import Account, AccountFile
from stormcellar.accounts.directory import FileAccounts, MemoryAccounts
from stormcellar.accounts.password_hashes import Decoys, HashForm, form_of
from stormcellar.accounts.passwords import ARGON2, PasswordChecker, hash_password
from stormcellar.cli.main import main

KEY = b"a key for names, of 32 bytes ...."
NAMES = [f"name{number}" for number in range(400)]
DEAR = argon2.PasswordHasher(time_cost=3, memory_cost=64, parallelism=2, hash_len=24, salt_len=20)
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
DEAR_HASH, CHEAP_HASH = hash_password("right", DEAR), hash_password("right", CHEAP)


class RecordingHasher(argon2.PasswordHasher):
    """Notes the form of each hash that it verifies, and of each that it makes."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=16, parallelism=1)
        self.work: list[HashForm] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Any:
        """Note the form, and verify."""
        self.work.append(form_of(str(hash)))
        return super().verify(hash, password)

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        """Hash, and note the form."""
        made = super().hash(password, salt=salt)
        self.work.append(form_of(made))
        return made


class Signing:
    """Accounts whose hashes were made elsewhere, and the work that a sign-in takes."""

    def __init__(self, hashes: dict[str, str], *, disabled: tuple[str, ...] = (), key: bytes = KEY) -> None:
        self.hasher = RecordingHasher()
        accounts = {name: Account(each, 0, name in disabled) for name, each in hashes.items()}
        self.accounts = MemoryAccounts(accounts, checker=PasswordChecker(argon2_hasher=self.hasher), key=key)

    async def work(self, name: str, password: str = "wrong") -> list[HashForm]:
        """Return what a sign-in that fails computed."""
        self.hasher.work.clear()
        assert await self.accounts.verify(name, password) is None
        return list(self.hasher.work)


@pytest.mark.parametrize("stored", [DEAR_HASH, CHEAP_HASH], ids=["dear", "cheap"])
@pytest.mark.gen_test
async def test_unknown_names_take_the_work_of_the_accounts(stored: str) -> None:  # E2
    """Where every account has the same parameters, other than the current ones, all names take theirs."""
    signing = Signing({"alice": stored, "gone": stored}, disabled=("gone",))

    work = [await signing.work(name) for name in ("alice", "gone", "nobody", "not a name", "", "\ud800")]
    work.append(await signing.work("gone", "right"))

    assert work == [[form_of(stored)]] * 7


@pytest.mark.gen_test
async def test_unknown_names_have_the_parameters_as_often_as_accounts() -> None:  # E2
    """Of four accounts one is dear: so is about a quarter of all other names."""
    signing = Signing({"a": DEAR_HASH, "b": CHEAP_HASH, "c": CHEAP_HASH, "d": CHEAP_HASH})

    found = Counter([form for name in NAMES for form in await signing.work(name)])

    assert found.keys() == {form_of(DEAR_HASH), form_of(CHEAP_HASH)}
    assert 60 < found[form_of(DEAR_HASH)] < 140


@pytest.mark.gen_test
async def test_a_name_takes_the_same_work_each_time() -> None:  # E2
    """In another process and after a restart, in each spelling; only with another key it is chosen anew."""
    hashes = {"a": DEAR_HASH, "b": CHEAP_HASH}
    one, again, other = Signing(hashes), Signing(hashes), Signing(hashes, key=b"x" * 32)

    first = [await one.work(name) for name in NAMES]

    assert [await one.work(name.upper()) for name in NAMES] == first
    assert [await again.work(name) for name in NAMES] == first
    assert [await other.work(name) for name in NAMES] != first


@pytest.mark.gen_test
async def test_renewed_hashes_change_the_share() -> None:  # E2 E4
    """A sign-in with the right password renews the hash, and so the work of other names."""
    signing = Signing({"alice": DEAR_HASH})
    assert await signing.accounts.verify("alice", "right") == "alice"

    assert await signing.work("nobody") == [signing.accounts._checker.form]


@pytest.mark.gen_test
async def test_file_that_changes_changes_the_work(tmp_path: Path) -> None:  # E2
    """An import counts from the next sign-in on."""
    file = AccountFile(tmp_path / "accounts.json")
    file.edit(lambda accounts: accounts.update(alice=Account(CHEAP_HASH, 0)))
    hasher = RecordingHasher()
    accounts = FileAccounts(file.path, checker=PasswordChecker(argon2_hasher=hasher), key=KEY)
    await accounts.verify("nobody", "wrong")
    file.edit(lambda accounts: accounts.update(alice=Account(DEAR_HASH, 0)))
    await accounts.verify("nobody", "wrong")

    assert hasher.work == [form_of(CHEAP_HASH), form_of(DEAR_HASH)]


@pytest.mark.gen_test
async def test_without_accounts_the_current_parameters_count() -> None:  # E2
    """A directory without accounts answers like one with them."""
    signing = Signing({})

    assert await signing.work("nobody") == [signing.accounts._checker.form]


def test_hash_of_nothing_has_the_form_and_no_password() -> None:
    """Every part has the length of a real one, with and without a version."""
    for stored in (
        DEAR_HASH,
        CHEAP_HASH,
        CHEAP_HASH.replace("v=19$", ""),
        CHEAP_HASH.replace("v=19", "v=16"),
    ):
        form = form_of(stored)
        nothing = form.hash_of_nothing()

        assert (form_of(nothing), len(nothing)) == (form, len(stored))
        assert argon2.extract_parameters(nothing) == argon2.extract_parameters(stored)
        with pytest.raises(argon2.exceptions.VerifyMismatchError):
            CHEAP.verify(nothing, "right")


def test_current_parameters_are_within_the_limits() -> None:
    """So are those of RFC 9106 for little memory, which argon2-cffi uses by default."""
    assert form_of(hash_password("x")) == PasswordChecker().form == form_of(ARGON2.hash("x"))
    assert form_of(CHEAP_HASH.replace("m=8,t=1,p=1", "m=65536,t=3,p=4"))


# --- hashes that cost too much ---

HOSTILE = [
    "m=4194304,t=1,p=1",
    "m=262145,t=1,p=1",
    "m=262144,t=5,p=1",
    "m=8,t=4294967295,p=1",
    "m=8192,t=1,p=17",
]


@pytest.mark.parametrize("cost", HOSTILE)
@pytest.mark.gen_test
async def test_hash_that_costs_too_much_is_refused(
    cost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # E3
    """By the file, the directory and the command, with the parameters and limits; it is never computed."""
    hostile = CHEAP_HASH.replace("m=8,t=1,p=1", cost)
    path = tmp_path / "accounts.json"
    AccountFile(path).edit(lambda accounts: accounts.update(alice=Account(CHEAP_HASH, 0)))
    path.write_text(path.read_text().replace(CHEAP_HASH, hostile))
    hasher = RecordingHasher()

    with pytest.raises(ValueError, match=rf"the hash of 'alice' costs too much \({cost}\): m can be at most"):
        AccountFile(path).read()
    with pytest.raises(ValueError, match="costs too much"):
        MemoryAccounts({"alice": Account(hostile, 0)}, checker=PasswordChecker(argon2_hasher=hasher))
    assert not await PasswordChecker(argon2_hasher=hasher).verify(hostile, "right")
    assert hasher.work == []
    assert main(["accounts", "list", "--data-dir", str(tmp_path)]) == 1
    assert f"costs too much ({cost})" in capsys.readouterr().err


@pytest.mark.gen_test
async def test_hostile_hash_that_comes_later_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # E3
    """A running server keeps the accounts that it has, and says why."""
    path = tmp_path / "accounts.json"
    AccountFile(path).edit(lambda accounts: accounts.update(alice=Account(CHEAP_HASH, 0)))
    accounts = FileAccounts(path, checker=PasswordChecker(argon2_hasher=CHEAP))
    content = json.loads(path.read_text())
    content["accounts"]["bob"] = {"hash": CHEAP_HASH.replace("m=8,", "m=4194304,"), "valid_after_ms": 0}
    path.write_text(json.dumps(content))

    assert await accounts.verify("alice", "right") == "alice"
    assert await accounts.verify("bob", "right") is None
    [line] = caplog.messages
    assert line.startswith("accounts unchanged: ") and "the hash of 'bob' costs too much" in line


def test_decoys_refuse_what_accounts_may_not_have() -> None:
    """The error does not repeat the hash."""
    with pytest.raises(ValueError, match=r"^is not an argon2id hash$"):
        Decoys(["plain text"], key=KEY, otherwise=form_of(CHEAP_HASH))
