"""`secret`: keys are added first, listed without being shown, and dropped one at a time."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stormcellar.cli import secret as secret_command
from stormcellar.cli.main import main
from stormcellar.runtime.signing_key_file import key_version, read_keys
from stormcellar.sessions.signing import KeyRing
from tests.support.running import ROOT, environment

FIRST = "7Vq0mPzX3hBsT9kLwE5yRfJcA8uNdG2o"
SECOND = "Zt4KxW1eQpYb6HvMj0sUrCg7DfLaN3iO"
THIRD = "pG8fTnX2vKd5LzRw7QyHc3MbJs9UeA1o"


class Secret:
    """The command line on one data directory, with what it printed."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = directory / "secret.keys"
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Run `secret` with *arguments* and return its status, output and errors."""
        status = main(["secret", *arguments, "--data-dir", str(self.path.parent)])
        return status, *self._capsys.readouterr()

    def write(self, text: str) -> None:
        """Write the secret file, for its owner only."""
        self.path.write_text(text)
        self.path.chmod(0o600)


@pytest.fixture
def secret(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Secret:
    """The command line on an empty data directory."""
    for name in [name for name in os.environ if name.startswith("STORMCELLAR_")]:
        monkeypatch.delenv(name)
    return Secret(tmp_path, capsys)


def test_version_is_the_one_in_cookies() -> None:
    """People are told the number that a cookie carries."""
    assert [key_version(key) for key in (FIRST, SECOND)] == [
        f"{KeyRing([key]).first:04x}" for key in (FIRST, SECOND)
    ]


def test_rotate_adds_a_first_key(secret: Secret) -> None:  # L2 L4
    """The new key signs, the others still count, and the file stays its owner's."""
    secret.write(f"{FIRST}\n{SECOND}\n")

    status, output, errors = secret("rotate")

    added, *others = read_keys(secret.path)
    assert (status, errors, others) == (0, "", [FIRST, SECOND])
    assert len(added.encode()) >= 32
    assert stat.S_IMODE(secret.path.stat().st_mode) == 0o600
    assert output.splitlines() == [
        f"{key_version(added)}: added; it signs after the server restarts or reloads its keys: kill -HUP PID",
        "older keys still verify; after the longest lifetime of a session (--absolute, --remember): "
        f"secret drop {key_version(SECOND)}",
    ]


def test_cookie_outlives_a_new_key_and_not_the_drop(secret: Secret) -> None:  # L4
    """What the old key signed is verified by the keys after `rotate`, and by those after `drop` no more."""
    secret.write(f"{FIRST}\n")
    value = f"{'h' * 22}.{'s' * 43}"
    signed = KeyRing(read_keys(secret.path)).sign("id", value, clock=lambda: 1_000_000_000.0)

    def verified() -> tuple[bytes, int] | None:
        return KeyRing(read_keys(secret.path)).verify("id", signed)

    secret("rotate")
    rotated = verified()
    secret("drop", key_version(FIRST))

    assert (rotated, verified()) == ((value.encode(), 1_000_000_000), None)


def test_rotate_makes_a_missing_file(secret: Secret) -> None:  # L1 L3
    """The first key of all is made the same way, with nothing older to drop."""
    status, output, _ = secret("rotate")

    [key] = read_keys(secret.path)
    assert (status, output.splitlines()) == (
        0,
        [f"{key_version(key)}: added; it signs after the server restarts or reloads its keys: kill -HUP PID"],
    )


def test_comments_survive(secret: Secret) -> None:
    """What people wrote beside the keys stays where it was, through `rotate` and `drop`."""
    secret.write(f"# ours, ask Ada\n\n{FIRST}\n  # from May\n  {SECOND}  \n# the end")

    secret("rotate")
    added = read_keys(secret.path)[0]
    rotated = secret.path.read_text()
    secret("drop", "3")

    assert rotated == f"# ours, ask Ada\n\n{added}\n{FIRST}\n  # from May\n  {SECOND}  \n# the end\n"
    assert secret.path.read_text() == f"# ours, ask Ada\n\n{added}\n{FIRST}\n  # from May\n# the end\n"


def test_version_that_is_taken_is_drawn_again(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two keys with one version would stop the start, so a new one has a version of its own."""
    drawn = iter([FIRST, SECOND, THIRD])
    monkeypatch.setattr(secret_command, "new_key", lambda: next(drawn))
    secret.write(f"{FIRST}\n{SECOND}\n")

    secret("rotate")

    assert read_keys(secret.path) == [THIRD, FIRST, SECOND]


def test_list_shows_no_key(secret: Secret) -> None:  # L8
    """A number, a version and what it is for; of the key not a character."""
    secret.write(f"{FIRST}\n# a comment\n{SECOND}\n")

    assert secret("list") == (0, f"1  {key_version(FIRST)}  signs\n2  {key_version(SECOND)}  verifies\n", "")


def test_list_makes_nothing(secret: Secret) -> None:
    """Whoever only looks leaves no file behind."""
    assert secret("list") == (0, "no keys; the first start creates one\n", "")
    assert os.listdir(secret.path.parent) == []


@pytest.mark.parametrize("which", ["2", key_version(SECOND), key_version(SECOND).upper()])
def test_drop_by_number_or_version(secret: Secret, which: str) -> None:  # L4
    """Either names the key; the others stay in their order."""
    secret.write(f"{FIRST}\n{SECOND}\n{THIRD}\n")

    status, output, errors = secret("drop", which)

    assert (status, errors) == (0, "")
    assert output.startswith(f"{key_version(SECOND)}: dropped; ")
    assert read_keys(secret.path) == [FIRST, THIRD]


@pytest.mark.parametrize(
    ("content", "which", "line"),
    [
        (
            f"{FIRST}\n{SECOND}\n",
            "1",
            f"key 1, {key_version(FIRST)}, cannot be dropped: it signs; add another first: secret rotate",
        ),
        (
            f"{FIRST}\n",
            key_version(FIRST),
            f"key 1, {key_version(FIRST)}, cannot be dropped: it signs; add another first: secret rotate",
        ),
        *(
            (f"{FIRST}\n{SECOND}\n", which, "unknown key; show numbers and versions with: secret list")
            for which in ("3", "0", "02", "zzzz", SECOND, "")
        ),
    ],
)
def test_drop_that_is_refused(secret: Secret, content: str, which: str, line: str) -> None:  # L8
    """The key that signs and what is no key are refused in one line that repeats no key."""
    secret.write(content)

    assert secret("drop", which) == (1, "", f"stormcellar: {line}\n")
    assert secret.path.read_text() == content


@pytest.mark.parametrize("arguments", [["rotate"], ["list"], ["drop", "2"]])
@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        ("tiny-key\n", 0o600, "is shorter than 32 bytes"),
        ("# no key\n", 0o600, "has no signing key"),
        (f"{FIRST}\n{SECOND}\n", 0o644, "is accessible to other users"),
    ],
)
def test_unfit_file_is_left_alone(
    secret: Secret, arguments: list[str], content: str, mode: int, reason: str
) -> None:  # L2 L3
    """A file that would not do for a start is told in one line, and stays as it is."""
    secret.write(content)
    secret.path.chmod(mode)

    status, output, errors = secret(*arguments)

    assert (status, output, len(errors.splitlines())) == (1, "", 1)
    assert reason in errors and content.strip() not in errors
    assert (secret.path.read_text(), stat.S_IMODE(secret.path.stat().st_mode)) == (content, mode)


def test_drop_without_a_file_is_one_line(secret: Secret) -> None:
    """There is nothing to drop."""
    assert secret("drop", "2") == (
        1,
        "",
        "stormcellar: there is no file of signing keys; the first start creates one\n",
    )


def test_file_can_be_named(secret: Secret, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--secret-file`, or its variable, is the file itself."""
    assert main(["secret", "rotate", "--secret-file", str(tmp_path / "one")]) == 0
    monkeypatch.setenv("STORMCELLAR_SECRET_FILE", str(tmp_path / "two"))
    assert main(["secret", "rotate"]) == 0

    assert [len(read_keys(tmp_path / name)) for name in ("one", "two")] == [1, 1]


def test_failed_write_loses_no_key(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is told, and the file is as it was."""
    secret.write(f"{FIRST}\n")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)

    assert secret("rotate")[0] == 1
    assert secret.path.read_text() == f"{FIRST}\n"


def test_new_keys_at_once_lose_no_key(tmp_path: Path) -> None:
    """Each of several processes that rotate at the same moment adds its key to those of the others."""
    command = [sys.executable, str(ROOT / "run.py"), "secret", "rotate", "--data-dir", str(tmp_path)]
    started = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment(), cwd=tmp_path)
        for _ in range(5)
    ]

    assert [process.wait(60) for process in started] == [0] * 5
    assert len(read_keys(tmp_path / "secret.keys")) == 5


def test_keys_are_read_under_the_lock(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading and writing nobody else can add a key that would be lost."""
    secret.write(f"{FIRST}\n")
    refused = []

    def read(path: Path) -> list[str]:
        with path.with_name(f".{path.name}.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                refused.append(True)
        return read_keys(path)

    monkeypatch.setattr(secret_command, "read_keys", read)

    secret("rotate")

    assert refused == [True]
