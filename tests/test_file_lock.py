"""The lock for changing a file: private, never behind a link, and waited for a limited time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import argon2
import pytest

from stormcellar import private_files as files
from stormcellar.accounts.account_file import Account, AccountFile
from stormcellar.accounts.directory import FileAccounts
from stormcellar.accounts.passwords import PasswordChecker, hash_password
from stormcellar.cli.main import main
from stormcellar.errors import Busy

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in a directory that every user may enter."""
    tmp_path.chmod(0o755)
    return tmp_path / "file"


@pytest.fixture(params=[0, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set a umask that removes no permission, those of others, or all."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up a lock at the second try."""
    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.0)


class Holder:
    """Somebody who holds the lock of a file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(lock_of(path), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __enter__(self) -> None:
        """Hold it already."""

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def lock_of(path: Path) -> Path:
    """Return the path of the lock file."""
    return path.with_name(f".{path.name}.lock")


def mode_of(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_lock_file_is_private_whatever_the_umask(path: Path) -> None:  # L3
    """Another user who can open the file can hold the lock, so nobody else can open it."""
    with files.locked(path):
        pass

    assert mode_of(lock_of(path)) == 0o600


def test_lock_file_with_a_wider_mode_is_tightened(path: Path) -> None:  # L3
    """A lock file that others could open becomes private; nothing else changes."""
    lock_of(path).touch()
    lock_of(path).chmod(0o644)
    with files.locked(path):
        pass

    assert mode_of(lock_of(path)) == 0o600


def test_lock_file_behind_a_link_is_refused(path: Path) -> None:  # L3
    """No other file is created, opened or changed through a symbolic link."""
    target = path.with_name("target")
    lock_of(path).symlink_to(target)

    with (
        pytest.raises(ValueError, match=rf"{lock_of(path)} is a symbolic link; remove it"),
        files.locked(path),
    ):
        pass

    assert not target.exists()


def test_lock_file_with_a_second_name_is_refused(path: Path) -> None:  # L3
    """The mode of another file is not changed through a hard link."""
    other = path.with_name("other")
    other.touch()
    other.chmod(0o644)
    lock_of(path).hardlink_to(other)

    with pytest.raises(ValueError, match="has a second name, a hard link; remove it"), files.locked(path):
        pass

    assert mode_of(other) == 0o644


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_without_waiting(path: Path, make: object) -> None:
    """A FIFO or a directory in the place of the lock file stops nothing."""
    assert callable(make)
    make(lock_of(path))

    with pytest.raises((ValueError, IsADirectoryError), match=str(lock_of(path))), files.locked(path):
        pass


def test_lock_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # L3
    """Its owner could hold the lock for ever."""
    lock_of(path).touch(mode=0o600)
    if os.geteuid() == 0:
        os.chown(lock_of(path), 4321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4321)

    with pytest.raises(ValueError, match="belongs to another user"), files.locked(path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_lock_file_made_by_root_belongs_to_the_owner_of_the_directory(path: Path) -> None:
    """The server, which runs as that user, can take the lock after root has used it."""
    os.chown(path.parent, 4321, 4322)
    with files.locked(path):
        pass

    status = lock_of(path).stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4321, 4322, 0o600)


@pytest.mark.usefixtures("short_wait")
def test_lock_that_stays_held_is_given_up(path: Path) -> None:
    """The error names the lock file and says what to do; later the lock can be taken."""
    with Holder(path), pytest.raises(files.LockHeld) as caught, files.locked(path):
        pass

    assert files.describe(caught.value) == (
        f"{lock_of(path)}: another process holds the lock; try again, or find the process with: "
        f"fuser {lock_of(path)}"
    )
    with files.locked(path):
        pass


def test_wait_ends_at_the_given_time(path: Path) -> None:
    """Whoever begins late, because threads were busy, does not wait for a whole time again."""
    with Holder(path):
        begun_s = time.monotonic()
        with pytest.raises(files.LockHeld), files.locked(path, until_s=begun_s - 1):
            pass

        assert time.monotonic() - begun_s < files.LOCK_WAIT_S


def test_no_descriptor_is_left_open(path: Path) -> None:
    """Whatever becomes of the lock, its file is closed, and a program that is started does not inherit it."""
    before = len(os.listdir("/dev/fd"))
    with files.locked(path):
        [inherited] = [os.get_inheritable(int(each)) for each in _descriptors_of(lock_of(path))]
    with Holder(path), pytest.raises(files.LockHeld), files.locked(path, until_s=0.0):
        pass
    lock_of(path).unlink()
    os.mkfifo(lock_of(path))
    with pytest.raises(ValueError), files.locked(path):
        pass

    assert (inherited, len(os.listdir("/dev/fd"))) == (False, before)


def _descriptors_of(path: Path) -> list[str]:
    return [each for each in os.listdir("/proc/self/fd") if _target(each) == str(path)]


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


# --- who uses it ---


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("accounts.json", ["accounts", "disable", "alice"]),
        ("accounts.json", ["accounts", "remove", "alice"]),
        ("secret.keys", ["secret", "rotate"]),
        ("secret.keys", ["secret", "drop", "2"]),
    ],
    ids=" ".join,
)
def test_command_says_that_the_lock_is_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str]
) -> None:
    """Status 1 and one line; the file stays as it was."""
    write(tmp_path)
    with Holder(tmp_path / name):
        status = main([*arguments, "--data-dir", str(tmp_path)])

    assert status == 1
    assert "another process holds the lock" in capsys.readouterr().err
    assert not AccountFile(tmp_path / "accounts.json").read()["alice"].disabled


@pytest.mark.usefixtures("short_wait")
@pytest.mark.gen_test
async def test_password_change_is_busy_while_the_lock_is_held(tmp_path: Path) -> None:
    """The request can be answered 503; nothing was changed."""
    accounts = open_accounts(tmp_path)
    with Holder(tmp_path / "accounts.json"), pytest.raises(Busy):
        await accounts.set_password("alice", "a new password", verified_ms=1_000)

    assert accounts.valid_after("alice") == 0
    await accounts.set_password("alice", "a new password", verified_ms=1_000)
    assert await accounts.verify("alice", "a new password") == "alice"


@pytest.mark.gen_test
async def test_many_changes_wait_no_longer_than_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time counts from the call: changes that queue for a thread do not hold up a stop one by one."""
    accounts = open_accounts(tmp_path)
    ends: list[float | None] = []

    def note(path: Path, *, until_s: float | None = None) -> object:
        ends.append(until_s)
        raise files.LockHeld(path)

    monkeypatch.setattr("stormcellar.accounts.account_file.locked", note)
    begun_s = time.monotonic()
    changes = [accounts.set_password("alice", f"password {n}", verified_ms=1_000) for n in range(40)]

    results = await asyncio.gather(*changes, return_exceptions=True)

    assert {type(result) for result in results} == {Busy}
    assert len(ends) == 40
    assert all(end is not None and begun_s < end <= time.monotonic() + files.LOCK_WAIT_S for end in ends)


@pytest.mark.gen_test
async def test_sign_in_does_not_wait_for_the_renewal_of_its_hash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A right password signs in while the lock is held; the next sign-in stores the new hash."""
    accounts = open_accounts(tmp_path, argon2.PasswordHasher(time_cost=2, memory_cost=8, parallelism=1))
    before = AccountFile(tmp_path / "accounts.json").read()["alice"].hash
    with Holder(tmp_path / "accounts.json"):
        begun_s = time.monotonic()
        assert await accounts.verify("alice", "right") == "alice"
        took_s = time.monotonic() - begun_s

    assert took_s < files.LOCK_WAIT_S
    assert AccountFile(tmp_path / "accounts.json").read()["alice"].hash == before
    assert caplog.messages == []
    assert await accounts.verify("alice", "right") == "alice"
    assert AccountFile(tmp_path / "accounts.json").read()["alice"].hash != before


def write(directory: Path) -> Path:
    """Write an account file and a file of two signing keys."""
    path = directory / "accounts.json"
    AccountFile(path).edit(lambda found: found.update(alice=Account(hash_password("right", CHEAP), 0)))
    keys = "7Vq0mPzX3hBsT9kLwE5yRfJcA8uNdG2o\nq8ZtY1nWc5RkV7dXo3HmLgPb0JsUeF4a\n"
    files.replace_private(directory / "secret.keys", keys)
    return path


def open_accounts(directory: Path, hasher: argon2.PasswordHasher = CHEAP) -> FileAccounts:
    """Open the account file in *directory*."""
    return FileAccounts(write(directory), checker=PasswordChecker(argon2_hasher=hasher))
