"""A secret that was given in the wrong place is repeated nowhere: not in an error, a report or the log."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from stormcellar.cli.main import main
from stormcellar.runtime import startup
from stormcellar.runtime.options import OPTIONS, Option
from stormcellar.runtime.settings import Settings

MARK = "hunter2"
SECRETS = (
    "hunter2",
    "p4ss.hunter2/And+More==",
    "-Hunter2",
    "it's hunter2",
    "hunter2:secret",
    "secrets:hunter2",
    "redis://user:hunter2@host:x",
    "hunter2" * 50,
)
COMMANDS = (["serve"], ["doctor"])
ACTIONS = (["accounts", "disable", "alice"], ["secret", "drop", "2"])
COMPANIONS = {
    "tls_cert": ("tls_key",),
    "tls_key": ("tls_cert",),
    "tls_key_password_file": ("tls_cert", "tls_key"),
}


class Output:
    """What a command line prints and logs."""

    def __init__(self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
        self._capsys = capsys
        self._caplog = caplog

    def __call__(self, *arguments: str) -> str:
        """Return all of it, in lower case. What an earlier call created is removed."""
        self._caplog.clear()
        for path in Path.cwd().iterdir():
            if path.name != "there":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with suppress(SystemExit):
            main(arguments)
        printed = self._capsys.readouterr()
        return "\n".join([printed.out, printed.err, *self._caplog.messages]).lower()


@pytest.fixture
def output(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Output:
    """The command line in an empty directory; `serve` ends before it listens."""

    def prepare(settings: Settings) -> int:
        startup.prepare(settings)
        return 0

    for name in [name for name in os.environ if name.startswith("STORMCELLAR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(startup, "serve", prepare)
    monkeypatch.setattr(startup, "hash_password", lambda password: "")
    caplog.set_level(logging.DEBUG)
    return Output(capsys, caplog)


def with_existing_companions(option: Option, directory: Path) -> list[str]:
    """Return the options that *option* needs, with files that exist."""
    (directory / "there").touch(mode=0o600)
    return [
        part
        for name in COMPANIONS.get(option.name, ())
        for part in (f"--{name.replace('_', '-')}", str(directory / "there"))
    ]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_value_of_an_option(option: Option, output: Output, tmp_path: Path) -> None:  # L8
    """As its value, after an equals sign or alone, for each command that has the option."""
    companions = with_existing_companions(option, tmp_path)

    for command, secret in itertools.product((*COMMANDS, *ACTIONS), SECRETS):
        for given in (
            [f"{option.flag}={secret}"],
            [option.flag, secret],
            [f"--no-{option.flag[2:]}={secret}"],
        ):
            told = output(*command, *companions, *given)
            assert MARK not in told, (command, given)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_value_of_a_variable(
    option: Option, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # L8
    """In the environment, for each command."""
    companions = with_existing_companions(option, tmp_path)

    for secret in SECRETS:
        monkeypatch.setenv(option.variable, secret)
        for command in (*COMMANDS, *ACTIONS):
            assert MARK not in output(*command, *(companions if command in COMMANDS else ())), command


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
@pytest.mark.parametrize("command", [*COMMANDS, *ACTIONS, ["accounts", "passwd"], ["secret"]], ids=" ".join)
def test_argument_that_is_out_of_place(command: Sequence[str], secret: str, output: Output) -> None:  # L8
    """Instead of a command, an action or a name, after one, and behind an option that does not exist."""
    wrong = (
        [secret],
        [f"--nosuch={secret}"],
        ["--nosuch", secret],
        [f"-x={secret}"],
        [f"-h{secret}"],
        ["--password-stdin=" + secret],
        ["--password", secret],
        ["--", secret],
    )

    for arguments in wrong:
        assert MARK not in output(*command, *arguments), arguments
        assert MARK not in output(*arguments, *command), arguments


@pytest.mark.parametrize("action", ["passwd", "disable", "enable", "remove"])
@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_password_in_place_of_a_name(action: str, secret: str, output: Output) -> None:  # L8
    """A name that no account has can be a password that was typed too early."""
    assert MARK not in output("accounts", action, secret)


def test_host_beyond_the_domain_of_the_cookies(output: Output) -> None:  # L8
    """It is the name of a host as far as we can tell, and browsers refuse our cookies from there."""
    told = output(
        "serve", "--behind-proxy=10.0.0.1", "--cookie-domain=example.org", "--allowed-hosts=hunter2"
    )

    assert "--allowed-hosts: browsers refuse" in told
    assert MARK not in told


def test_unknown_variable(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:  # L8
    """Its name is told, its value is not."""
    monkeypatch.setenv("STORMCELLAR_PASSWORD", MARK)

    told = output("doctor")

    assert "stormcellar_password: unknown setting" in told
    assert MARK not in told


def test_option_that_does_not_exist_is_named(output: Output) -> None:
    """What looks like the name of an option is one."""
    assert "--nosuch: unknown option" in output("--nosuch=1")
    assert "-x: unknown option" in output("-x")
