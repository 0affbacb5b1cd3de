"""`doctor`: a line for each thing that a server needs, and what to do about what is wrong."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import argon2
import pytest

from stormcellar.accounts.directory import Account, AccountFile
from stormcellar.accounts.passwords import hash_password
from stormcellar.cli import doctor
from stormcellar.cli.main import main
from stormcellar.private_files import create_private
from tests.conftest import StartServer
from tests.runtime.test_serve import with_password
from tests.support.backends import Backend, free_port
from tests.support.running import Running

KEY = "7Vq0mPzX3hBsT9kLwE5yRfJcA8uNdG2o"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment hold no settings."""
    for name in [name for name in os.environ if name.startswith("STORMCELLAR_")]:
        monkeypatch.delenv(name)


class Doctor:
    """`doctor` on one data directory."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, list[str]]:
        """Return the status and the lines; there is nothing on standard error."""
        status = main(["doctor", "--data-dir", str(self.directory), "--port", "0", *arguments])
        output = self._capsys.readouterr()
        assert output.err == ""
        return status, output.out.splitlines()

    def problems(self, *arguments: str) -> list[str]:
        """Return what is wrong; the status says that something is."""
        status, lines = self(*arguments)
        assert status == 1
        assert {line.split()[0] for line in lines} <= {"ok", "problem"}
        return [line.removeprefix("problem  ") for line in lines if line.startswith("problem")]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """`doctor` on a data directory that does not exist yet."""
    return Doctor(tmp_path / "data", capsys)


def add_account(directory: Path) -> None:
    """Put an account in the file."""
    hashed = hash_password("right", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    AccountFile(directory / "accounts.json").edit(lambda found: found.update(alice=Account(hashed, 0)))


def test_fresh_machine_is_well(run: Doctor) -> None:
    """With nothing set up yet all is well, and looking at it makes neither a key nor a directory."""
    assert run() == (
        0,
        [
            "ok       data directory of --data-dir will be created",
            "ok       signing keys: secret.keys in --data-dir will be created on the first start",
            "ok       accounts: none, so there will be a demo account",
            "ok       port 0 on 127.0.0.1 is free",
            "ok       store: memory answers; it works with one process only and is empty after a restart",
        ],
    )
    assert not run.directory.exists()


def test_set_up_machine_is_well(run: Doctor, redis8: Backend) -> None:
    """What is there is counted, and the store is asked."""
    create_private(run.directory / "secret.keys", f"{KEY}\n")
    add_account(run.directory)

    status, lines = run("--store", redis8.url)

    assert (status, lines[:-1]) == (
        0,
        [
            f"ok       data directory {run.directory}",
            f"ok       signing keys: 1 in {run.directory / 'secret.keys'}",
            f"ok       accounts: 1 in {run.directory / 'accounts.json'}",
            "ok       port 0 on 127.0.0.1 is free",
        ],
    )
    clock = r"its clock is 0\.\d{3} s (ahead of|behind) this machine's"
    assert re.fullmatch(f"ok       store: redis answers; {clock}", lines[-1])


def test_everything_wrong_is_told_at_once(run: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """One problem does not hide the next, and each says what to do."""
    monkeypatch.setattr(doctor, "_PROBE_S", 0.05)
    create_private(run.directory / "secret.keys", "short")
    create_private(run.directory / "accounts.json", "{")
    (run.directory / "accounts.json").chmod(0o644)
    store, taken = free_port(), socket.create_server(("127.0.0.1", 0))
    with taken:
        port = taken.getsockname()[1]

        found = run.problems("--store", f"redis://127.0.0.1:{store}/0", "--port", str(port))

    path = run.directory / "accounts.json"
    assert found[0].startswith(
        f"key 1 in {run.directory / 'secret.keys'} is shorter than 32 bytes; create one with"
    )
    assert found[1:] == [
        f"{path} is accessible to other users: chmod 600 {path}",
        f"port {port} on 127.0.0.1: Address already in use; choose another with --port or --address",
        "store: nothing accepts connections at the address of the store; start the store, or correct host "
        "and port in the URL",
    ]


@pytest.mark.parametrize("mode", [0o644, 0o660])
def test_key_that_others_may_read(run: Doctor, mode: int) -> None:  # L3
    """The command that mends it is shown, the key is not."""
    path = run.directory / "secret.keys"
    create_private(path, KEY)
    path.chmod(mode)

    assert run.problems() == [f"{path} is accessible to other users: chmod 600 {path}"]


def test_no_accounts_and_no_demo(run: Doctor) -> None:
    """A server that nobody could sign in to is a problem."""
    assert run.problems("--no-demo") == [
        "no accounts in accounts.json in --data-dir; add one with: accounts add NAME"
    ]


def test_data_directory_that_is_a_file(run: Doctor) -> None:
    """The place where files would go is named, with the flag that names another."""
    run.directory.write_text("")

    assert run.problems()[0] == (
        f"data directory {run.directory}: {run.directory} is not a directory; choose another with --data-dir"
    )


def test_data_directory_that_cannot_be_written(run: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it could not be made either, the nearest directory that exists is what matters."""
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)

    assert run.problems() == [
        f"data directory of --data-dir: {run.directory.parent} is not writable; "
        "change its owner, or choose another with --data-dir"
    ]


def test_address_of_another_machine(run: Doctor) -> None:
    """An address that cannot be had is a problem."""
    add_account(run.directory)

    found = run.problems("--address=192.0.2.1", "--behind-proxy=10.0.0.1")

    assert len(found) == 1
    assert found[0].startswith("port 0 on 192.0.2.1: ")


def test_wrong_password_for_the_store(run: Doctor, start_server: StartServer) -> None:  # L8
    """A store that answers but refuses is told apart from one that is down, without the password."""
    url = with_password(start_server("redis8")).replace("hunter2", "hunter3")

    assert run.problems("--store", url) == [
        "store: Redis does not accept the user and password; correct them in the URL; "
        "percent-encode reserved characters; check that the user exists and is on"
    ]


def test_advice_names_the_variable_that_was_set(
    run: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting from the environment is named by its variable."""
    monkeypatch.setenv("STORMCELLAR_AUDIT_LOG", f"{tmp_path}/none/audit.log")

    assert run.problems()[-1:] == [
        "audit log of STORMCELLAR_AUDIT_LOG is not writable; choose another with STORMCELLAR_AUDIT_LOG"
    ]


def test_secrets_are_not_shown(run: Doctor, start_server: StartServer) -> None:  # L8
    """Neither the keys, nor a hash, nor the store's password is in what it prints."""
    url = with_password(start_server("redis8"))
    create_private(run.directory / "secret.keys", KEY)
    add_account(run.directory)

    status, lines = run("--store", url)

    assert status == 0
    assert not any(secret in "".join(lines) for secret in (KEY, "hunter2", "argon2"))


def test_running_server_is_no_problem(run: Doctor, tmp_path: Path) -> None:
    """Beside the server it is meant for, the port in use is as it should be."""
    with Running(tmp_path) as server:
        port = server.base().rpartition(":")[2]

        status, lines = run("--port", port)

    assert status == 0
    assert f"ok       port {port} on 127.0.0.1: in use by this server" in lines


def test_settings_that_will_not_do_come_first(run: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that `serve` would refuse are refused alike, with status 2."""
    assert main(["doctor", "--idle", "5", "--port", "x"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_audit_log_that_cannot_be_written(run: Doctor, tmp_path: Path) -> None:
    """What would stop the server is found before; a file that will be created is none of it."""
    assert run.problems(f"--audit-log={tmp_path}/none/audit.log")[-1:] == [
        "audit log of --audit-log is not writable; choose another with --audit-log"
    ]
    assert run(f"--audit-log={tmp_path}/audit.log")[0] == 0
    assert not (tmp_path / "audit.log").exists()
