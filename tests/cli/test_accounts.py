"""`accounts`: what each action does to the file, and how it asks for a password."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import argon2
import pytest

from stormcellar.accounts.directory import Account, AccountFile
from stormcellar.accounts.passwords import ARGON2
from stormcellar.cli import accounts
from stormcellar.cli.main import main
from tests.support.running import ROOT, environment

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
GOOD = "a good password"
UNKNOWN = "this account does not exist; show the accounts with: accounts list"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hashes cost little, and the environment hold no settings."""
    monkeypatch.setattr("stormcellar.accounts.passwords.hash_password.__defaults__", (CHEAP,))
    for name in [name for name in os.environ if name.startswith("STORMCELLAR_")]:
        monkeypatch.delenv(name)


class Admin:
    """The command line on one data directory, with what it printed."""

    def __init__(
        self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.path = directory / "accounts.json"
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Run `accounts` with *arguments* and return its status, output and errors."""
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main(["accounts", *arguments, "--data-dir", str(self.path.parent)])
        return status, *self._capsys.readouterr()

    def add(self, name: str, password: str = GOOD) -> tuple[int, str, str]:
        """Add an account."""
        return self("add", name, "--password-stdin", stdin=password + "\n")

    def accounts(self) -> dict[str, Account]:
        """Return what the file holds."""
        return AccountFile(self.path).read()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Admin:
    """The command line on an empty data directory."""
    return Admin(tmp_path / "data", capsys, monkeypatch)


def test_add(run: Admin) -> None:
    """An account is added under its canonical name, in a file that only its owner may read."""
    before_ms = int(time.time() * 1000)

    assert run.add("\uff21lice") == (0, "alice: added\n", "")

    added = run.accounts()["alice"]
    assert CHEAP.verify(added.hash, GOOD)
    assert before_ms <= added.valid_after_ms <= int(time.time() * 1000)
    assert not added.disabled
    assert run.path.stat().st_mode & 0o777 == 0o600
    assert run.path.parent.stat().st_mode & 0o777 == 0o700


def test_real_hash_is_argon2id(tmp_path: Path) -> None:  # E4
    """As a process, the command stores a hash with the full parameters."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "accounts", "add", "alice", "--password-stdin"],
        input=GOOD + "\n",
        text=True,
        capture_output=True,
        env=environment(STORMCELLAR_DATA_DIR=str(tmp_path / "d")),
        cwd=tmp_path,
        timeout=60,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "alice: added\n", "")
    assert ARGON2.verify(AccountFile(tmp_path / "d" / "accounts.json").read()["alice"].hash, GOOD)


def test_add_twice_is_refused(run: Admin) -> None:
    """An existing account keeps its password; the line says how to change it."""
    run.add("alice")
    before = run.accounts()

    assert run.add("ALICE", "another password") == (
        1,
        "",
        "stormcellar: account 'alice' already exists; change its password with: accounts passwd alice\n",
    )
    assert run.accounts() == before


@pytest.mark.parametrize("name", ["", " ", "al ice", "x" * 65, "al\u0131ce", "../alice", "a\nb", "$ne"])
def test_impossible_name_is_refused(run: Admin, name: str) -> None:
    """A name that nobody could sign in with is refused in one line, and no file is made."""
    status, output, errors = run.add(name)

    assert (status, output) == (1, "")
    assert errors.endswith("is not a valid account name: use 1 to 64 of a-z 0-9 . _ @ + -\n")
    assert len(errors.splitlines()) == 1
    assert not run.path.exists()


@pytest.mark.parametrize("password", ["", "seven77", "x" * 1025, "\udc80" * 8, "password1", "Alice.Smith"])
def test_weak_or_impossible_password_is_refused(run: Admin, password: str) -> None:  # E5 E17
    """A password that is too weak is refused in one line by `add` and `passwd`, and not repeated."""
    added = run.add("alice.smith", password)
    run.add("alice.smith")
    before = run.accounts()
    changed = run("passwd", "alice.smith", "--password-stdin", stdin=password + "\n")

    assert added == changed
    assert added[:2] == (1, "")
    assert re.match(r"stormcellar: (.+\. )?Use ", added[2]) and len(added[2].splitlines()) == 1
    assert not password or password not in added[2]
    assert run.accounts() == before


@pytest.mark.parametrize(
    "stdin", [" two  words ", " two  words \n", " two  words \r\n", " two  words \nmore\n"]
)
def test_password_from_standard_input_is_its_first_line(run: Admin, stdin: str) -> None:
    """The line's end is no part of the password; every space is."""
    run("add", "alice", "--password-stdin", stdin=stdin)

    assert CHEAP.verify(run.accounts()["alice"].hash, " two  words ")


@pytest.mark.parametrize(
    "words",
    [
        ["add", "alice", "--password-stdin"],
        ["add", "--password-stdin", "alice"],
        ["--password-stdin", "add", "alice"],
    ],
)
def test_options_go_anywhere(run: Admin, words: list[str]) -> None:
    """Where an option stands among the words makes no difference."""
    assert run(*words, stdin=GOOD + "\n") == (0, "alice: added\n", "")


def test_list(run: Admin) -> None:
    """Names in order, the disabled ones marked; no hash is shown."""
    run.add("bob")
    run.add("alice")
    run("disable", "bob")

    assert run("list") == (0, "alice\nbob  (disabled)\n", "")


def test_list_of_none(run: Admin) -> None:
    """Without a file there are no accounts, and listing them makes none."""
    assert run("list") == (0, "no accounts\n", "")
    assert not run.path.parent.exists()


def test_disable_and_enable(run: Admin, monkeypatch: pytest.MonkeyPatch) -> None:  # C11
    """Each moves the moment that sign-ins must be later than, so nothing from before comes back."""
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    run.add("alice")
    seen = []
    for action in ("disable", "enable"):
        now_s += 60
        assert run(action, "alice")[0] == 0
        account = run.accounts()["alice"]
        seen.append((account.disabled, account.valid_after_ms == int(now_s * 1000)))

    assert seen == [(True, True), (False, True)]
    assert CHEAP.verify(run.accounts()["alice"].hash, GOOD)


def test_remove_and_add_again(run: Admin, monkeypatch: pytest.MonkeyPatch) -> None:  # C11
    """Whoever gets the name of a removed account gets none of its sessions."""
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    run.add("alice")
    signed_in_ms = int(now_s * 1000) + 1
    now_s += 60
    removed = run("remove", "alice"), run.accounts()
    run.add("alice", "another password")

    assert removed == ((0, "alice: removed; all sessions of this account have ended\n", ""), {})
    assert run.accounts()["alice"].valid_after_ms > signed_in_ms


def test_passwd(run: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new password replaces the old one and ends every session, also while the account is disabled."""
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    run.add("alice")
    run("disable", "alice")
    now_s += 60

    assert run("passwd", "alice", "--password-stdin", stdin="a new password\n") == (
        0,
        "alice: password changed; all sessions of this account have ended\n",
        "",
    )
    account = run.accounts()["alice"]
    assert CHEAP.verify(account.hash, "a new password")
    assert (account.disabled, account.valid_after_ms) == (True, int(now_s * 1000))


def test_moment_never_moves_back(run: Admin, monkeypatch: pytest.MonkeyPatch) -> None:  # C11
    """A clock that was set back does not bring ended sessions to life, and the change shows all the same."""
    run.add("alice")
    before_ms = run.accounts()["alice"].valid_after_ms
    monkeypatch.setattr(time, "time", lambda: 1_000.0)
    run("disable", "alice")

    assert run.accounts()["alice"].valid_after_ms == before_ms + 1


@pytest.mark.parametrize("action", ["disable", "enable", "remove", "passwd"])
def test_unknown_account_is_refused(run: Admin, action: str) -> None:
    """There is nothing to change; no password is asked for, no file is made."""
    assert run(action, "nobody") == (1, "", f"stormcellar: {UNKNOWN}\n")
    assert not run.path.exists()


def test_without_a_terminal_it_says_what_to_use(run: Admin) -> None:
    """In a script, a password is read only where that was asked for."""
    assert run("add", "alice", stdin=GOOD + "\n") == (
        1,
        "",
        "stormcellar: cannot prompt for the password without a terminal; use --password-stdin\n",
    )


def test_file_can_be_named(run: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--accounts`, or its variable, is the file itself, which need not exist yet."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{GOOD}\n{GOOD}\n"))

    assert main(["accounts", "add", "a", "--password-stdin", "--accounts", str(tmp_path / "one.json")]) == 0
    monkeypatch.setenv("STORMCELLAR_ACCOUNTS", str(tmp_path / "two.json"))
    assert main(["accounts", "add", "b", "--password-stdin"]) == 0
    assert sorted(AccountFile(tmp_path / "one.json").read()) == ["a"]
    assert sorted(AccountFile(tmp_path / "two.json").read()) == ["b"]


@pytest.mark.parametrize("action", ["list", "add", "remove"])
def test_spoiled_file_is_left_alone(run: Admin, action: str) -> None:
    """A file that cannot be understood is told in one line and not overwritten."""
    run.add("alice")
    run.path.write_text("{")

    status, output, errors = run(
        action, *(["bob"] if action != "list" else []), *(["--password-stdin"] if action == "add" else [])
    )

    assert (status, output) == (1, "")
    assert errors.startswith(f"stormcellar: {run.path} is not an account file")
    assert len(errors.splitlines()) == 1
    assert run.path.read_text() == "{"


def test_place_that_cannot_be_written_is_one_line(run: Admin) -> None:
    """A data directory that is a file is told with its name."""
    run.path.parent.write_text("")

    status, _, errors = run.add("alice")

    assert status == 1
    assert errors in (
        f"stormcellar: {run.path.parent}: Not a directory\n",
        f"stormcellar: {run.path}: Not a directory\n",
        f"stormcellar: {run.path.parent}: File exists\n",
    )


def test_ten_at_once_lose_none(tmp_path: Path) -> None:
    """Ten processes that each add an account at the same moment leave ten accounts, and no other file."""
    command = [sys.executable, str(ROOT / "run.py"), "accounts", "add", "--password-stdin"]
    started = [
        subprocess.Popen(
            [*command, f"user{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment(STORMCELLAR_DATA_DIR=str(tmp_path)),
        )
        for number in range(10)
    ]
    for process in started:
        process.communicate(GOOD.encode() + b"\n", timeout=120)

    assert [process.returncode for process in started] == [0] * 10
    assert sorted(AccountFile(tmp_path / "accounts.json").read()) == [f"user{number}" for number in range(10)]
    assert sorted(os.listdir(tmp_path)) == [".accounts.json.lock", "accounts.json"]


# --- at a terminal ---


def at_terminal(
    directory: Path, *answers: bytes, command: tuple[str, ...] = ("add", "alice")
) -> tuple[int, str]:
    """Run `accounts` at a terminal, answer each question, and return the status and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        arguments = [sys.executable, str(ROOT / "run.py"), "accounts", *command, "--data-dir", str(directory)]
        os.execve(sys.executable, arguments, environment())
    shown = b""
    remaining = list(answers)
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux says EIO where others say end of file
            break
        if not chunk:
            break
        shown += chunk
        if chunk.rstrip().endswith(b":") and remaining:
            os.write(terminal, remaining.pop(0))
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode().replace("\r\n", "\n")


def test_password_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    """At a terminal the password is typed twice, unseen."""
    status, shown = at_terminal(
        tmp_path, " sécret sentence ".encode() + b"\n", " sécret sentence ".encode() + b"\n"
    )

    assert (status, shown) == (0, "Password: \nAgain: \nalice: added\n")
    assert ARGON2.verify(AccountFile(tmp_path / "accounts.json").read()["alice"].hash, " sécret sentence ")


@pytest.mark.parametrize(
    ("answers", "status", "last"),
    [
        ((b"one\n", b"two\n"), 1, "stormcellar: the two passwords differ"),
        (
            (b"\n", b"\n"),
            1,
            "stormcellar: Use at least 8 characters; several words are easy to remember.",
        ),
        ((b"\x04",), 1, "stormcellar: no password was given"),
        ((b"\x03",), 130, ""),
    ],
)
def test_slips_at_the_terminal(tmp_path: Path, answers: tuple[bytes, ...], status: int, last: str) -> None:
    """Two different passwords, none, Ctrl-D and Ctrl-C each end it in order, and nothing is stored."""
    found, shown = at_terminal(tmp_path, *answers)

    assert found == status
    assert "Traceback" not in shown
    assert last in shown.splitlines()[-1]
    assert not (tmp_path / "accounts.json").exists()


def test_unknown_name_is_told_before_the_password_is_asked_for(tmp_path: Path) -> None:
    """Nobody types a password for nothing."""
    assert at_terminal(tmp_path, command=("passwd", "nobody")) == (
        1,
        f"stormcellar: {UNKNOWN}\n",
    )


def test_refusal_changes_nothing(tmp_path: Path) -> None:
    """What `run` refuses it says in the exception, for whoever calls it without a command line."""
    with pytest.raises(accounts.ActionRefused, match=UNKNOWN):
        accounts.run("remove", tmp_path / "accounts.json", "Bob", password_stdin=False)
