"""The command line: what it understands, what it says, and with which status it ends."""

from __future__ import annotations

import configparser
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stormcellar.cli import main as cli
from stormcellar.cli.main import main
from stormcellar.runtime import startup
from stormcellar.runtime.options import OPTIONS, Option
from stormcellar.runtime.settings import Settings
from tests.support.running import ROOT, environment


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a directory and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STORMCELLAR_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Note what would be served, and serve nothing."""
    found: list[Settings] = []

    def note(settings: Settings) -> int:
        found.append(settings)
        return 0

    monkeypatch.setattr(startup, "serve", note)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Return the lines of standard error with which *arguments* are refused, with status 2."""
    try:
        status: object = main(arguments)
    except SystemExit as exc:
        status = exc.code
    output = capsys.readouterr()
    assert (status, output.out) == (2, "")
    return output.err.splitlines()


def test_run_py_is_one_statement() -> None:
    """`run.py` only hands over, and ends with the status of what it handed to."""
    source = (ROOT / "run.py").read_text()

    assert re.sub(r'""".*?"""|\s+', " ", source).split() == (
        ["from", "stormcellar.cli.main", "import", "main", "raise", "SystemExit(main())"]
    )


def test_console_script_is_the_same_program() -> None:
    """The command `stormcellar` of an installation is the `main` of `run.py`."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, _, target = setup["options.entry_points"]["console_scripts"].strip().partition(" = ")
    module, _, function = target.partition(":")

    assert name == "stormcellar"
    assert getattr(importlib.import_module(module), function) is main


@pytest.mark.parametrize("command", [[], ["serve"], ["doctor"]])
@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_help_shows_every_option_with_its_default(
    capsys: pytest.CaptureFixture[str], command: list[str], option: Option
) -> None:
    """`--help` names each flag, what it takes, what it is for and what holds without it."""
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])

    text = " ".join(re.sub(r"-\s*\n\s+", "-", capsys.readouterr().out).split())
    assert caught.value.code == 0
    assert f"{option.flag} {option.type.metavar}".strip() in text
    assert option.help in text
    assert f"(default: {option.default or option.otherwise})" in text
    assert option.type.metavar != "TIME" or "TIME has a unit: 500ms, 90s, 30m, 12h, 7d" in text


def test_help_names_the_commands_and_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` tells how the environment spells an option, and which commands there are."""
    with pytest.raises(SystemExit):
        main(["--help"])

    text = capsys.readouterr().out
    assert "--store-prefix as STORMCELLAR_STORE_PREFIX" in text
    assert all(
        f"\n  {command}" in text for command in ("serve", "accounts add NAME", "secret rotate", "doctor")
    )


def test_help_of_accounts(capsys: pytest.CaptureFixture[str]) -> None:
    """`accounts --help` names the actions and its own options only."""
    with pytest.raises(SystemExit):
        main(["accounts", "--help"])

    text = " ".join(capsys.readouterr().out.split())
    assert "one of add, list, disable, enable, remove, passwd" in text
    assert all(flag in text for flag in ("--password-stdin", "--data-dir", "--accounts"))
    assert "--store" not in text and "see accounts --help" not in text


def test_help_of_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """`secret --help` names the actions and its own options only."""
    with pytest.raises(SystemExit):
        main(["secret", "--help"])

    text = " ".join(capsys.readouterr().out.split())
    assert "one of rotate, list, drop" in text
    assert all(flag in text for flag in ("--secret-file", "--data-dir", "KEY"))
    assert "--store" not in text and "--accounts" not in text


def test_help_holds_no_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # L8
    """What the environment says, a password in it for one, is in no help."""
    monkeypatch.setenv("STORMCELLAR_STORE", "redis://:hunter2@localhost/0")
    for arguments in (
        ["--help"],
        ["doctor", "--help"],
        ["accounts", "--help"],
        ["secret", "--help"],
        ["--version"],
    ):
        with pytest.raises(SystemExit):
            main(arguments)

    assert "hunter2" not in "".join(capsys.readouterr())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` is one line."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert (caught.value.code, len(capsys.readouterr().out.splitlines())) == (0, 1)


def test_serve_is_the_default(served: list[Settings]) -> None:
    """Without a command, or with options first, the server is run; `serve` says the same."""
    assert [main([]), main(["--port", "1"]), main(["serve", "--port=1"])] == [0, 0, 0]
    assert [settings.port for settings in served] == [8888, 1, 1]


def test_environment_is_read(served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable counts where no flag is given."""
    monkeypatch.setenv("STORMCELLAR_PORT", "1")
    monkeypatch.setenv("STORMCELLAR_CARRY", "cart")
    main(["--port", "2"])

    assert (served[0].port, served[0].carry) == (2, {"cart"})


@pytest.mark.parametrize(("flag", "expected"), [("--demo", True), ("--no-demo", False)])
def test_demo_is_switched_both_ways(served: list[Settings], flag: str, expected: bool) -> None:
    """The one option without a value has two flags."""
    main([flag])

    assert served[0].demo is expected


def test_arguments_come_from_the_command_line(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called without arguments, as the console script does, those of the process count."""
    monkeypatch.setattr(sys, "argv", ["stormcellar", "--port", "7"])

    assert main() == 0
    assert served[0].port == 7


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--nosuch"], ["--nosuch: unknown option"]),
        (["--nosuch=1"], ["--nosuch: unknown option"]),
        (["--stroe=redis"], ["--stroe: unknown option; did you mean --store?"]),
        (["-p", "80"], ["-p: unknown option"]),
        (["--sto=redis"], ["--sto: unknown option; did you mean --store?"]),
        (["--x", "1", "--y"], ["--x: unknown option", "--y: unknown option"]),
        (
            ["sevre"],
            ["unknown command; it must be one of serve, accounts, secret, doctor; did you mean serve?"],
        ),
        (
            ["--port", "1", "doctor"],
            ["too many arguments; a command and its name must come first; see --help"],
        ),
        (["serve", "extra"], ["too many arguments; a command and its name must come first; see --help"]),
        (["--port"], ["argument --port: expected one argument; see --help"]),
        (["--idle", "-5m"], ["argument --idle: expected one argument; see --help"]),
        (["accounts"], ["the following arguments are required: ACTION; see --help"]),
        (
            ["accounts", "frobnicate", "x"],
            ["ACTION is one of add, list, disable, enable, remove, passwd; see --help"],
        ),
        (["accounts", "add"], ["accounts add takes a NAME; see --help"]),
        (["accounts", "list", "x"], ["accounts list takes no NAME; see --help"]),
        (["accounts", "list", "--store", "x"], ["--store: unknown option"]),
        (["--port", "x", "--idle", "5"], ["--port: ", "--idle: "]),
        (["--address", "0.0.0.0"], ["--address: "]),
        (["doctor", "--port", "x"], ["--port: "]),
        (["accounts", "list", "--data-dir="], ["--data-dir: "]),
        (["secret"], ["the following arguments are required: ACTION; see --help"]),
        (["secret", "frobnicate"], ["ACTION is one of rotate, list, drop; see --help"]),
        (["secret", "drop"], ["secret drop takes a KEY; see --help"]),
        (["secret", "rotate", "1"], ["secret rotate takes no KEY; see --help"]),
        (["secret", "list", "--secret-file="], ["--secret-file: "]),
    ],
)
def test_slips_are_told_one_line_each(
    capsys: pytest.CaptureFixture[str], arguments: list[str], lines: list[str]
) -> None:
    """Status 2, and on standard error a line for each thing wrong: no usage text, no traceback."""
    found = refused(capsys, *arguments)

    assert len(found) == len(lines)
    for actual, expected in zip(found, lines, strict=True):
        assert actual == f"stormcellar: {expected}" or (
            expected.endswith(": ") and actual.startswith(f"stormcellar: {expected}")
        )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--stroe", "redis://:hunter2@host"],
        ["--stroe=redis://:hunter2@host"],
        ["redis://:hunter2@host"],
        ["serve", "redis://:hunter2@host"],
        ["--store", "redis://:hunter2@host:x"],
        ["--store", "unknown://:hunter2@host"],
        ["accounts", "passwd", "alice", "hunter2"],
        ["accounts", "--password", "hunter2", "passwd", "alice"],
        ["secret", "rotate", "hunter2"],
    ],
)
def test_a_password_in_the_wrong_place_is_not_repeated(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:  # L8
    """Wherever a password was typed by mistake, it is not written to a terminal or a journal."""
    assert "hunter2" not in "".join(refused(capsys, *arguments))


def test_unknown_variable_is_refused_by_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt variable is told by each command, whether or not it would use it."""
    monkeypatch.setenv("STORMCELLAR_STROE", "redis")

    line = "stormcellar: STORMCELLAR_STROE: unknown setting; did you mean STORMCELLAR_STORE?"
    assert [
        refused(capsys, *c) for c in ([], ["serve"], ["doctor"], ["accounts", "list"], ["secret", "list"])
    ] == [[line]] * 5


def test_interrupt_before_anything_runs_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while it starts ends with the status shells use, without a traceback."""

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._COMMANDS, "doctor", interrupt)

    assert main(["doctor"]) == 130


def test_refusal_of_the_real_process(tmp_path: Path) -> None:
    """As a process from another working directory: status 2, the lines, and not a file left behind."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "--port", "x"],
        cwd=tmp_path,
        env=environment(STORMCELLAR_IDLE="5"),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 2)
    assert list(tmp_path.iterdir()) == []
