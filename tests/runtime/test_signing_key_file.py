"""Signing keys: made once, private, strong, never repeated in a message."""

from __future__ import annotations

import base64
import re
import secrets
import stat
from pathlib import Path

import pytest

from stormcellar.private_files import create_private
from stormcellar.runtime import signing_key_file as keys_module
from stormcellar.runtime.signing_key_file import read_keys, read_or_create_keys

GOOD = "7Vq0mPzX3hBsT9kLwE5yRfJcA8uNdG2o"
OTHER = "Zt4KxW1eQpYb6HvMj0sUrCg7DfLaN3iO"


def secret_file(directory: Path, content: str | bytes) -> Path:
    """Write a secret file that only its owner may read."""
    path = directory / "secret.keys"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    return path


def refusal(path: Path) -> str:
    """Return why the file at *path* is refused."""
    with pytest.raises(ValueError) as caught:
        read_or_create_keys(path)
    return str(caught.value)


def test_missing_file_is_made_with_a_random_key(tmp_path: Path) -> None:  # L1 L2 L3
    """There is no default key: the first start makes a random one, for its owner's eyes only."""
    one = read_or_create_keys(tmp_path / "a" / "secret.keys")
    other = read_or_create_keys(tmp_path / "b" / "secret.keys")

    assert len(one) == len(other) == 1
    assert one != other
    assert len(one[0].encode()) >= 32
    assert stat.S_IMODE((tmp_path / "a" / "secret.keys").stat().st_mode) == 0o600


def test_made_file_is_kept(tmp_path: Path) -> None:
    """A second start has the key of the first."""
    assert read_or_create_keys(tmp_path / "secret.keys") == read_or_create_keys(tmp_path / "secret.keys")


def test_faster_process_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # L3
    """Of two processes that make the file at once, both have the key of the one that was first."""
    path = tmp_path / "secret.keys"

    def create_second(path: Path, text: str) -> None:
        create_private(path, GOOD)
        create_private(path, text)

    monkeypatch.setattr(keys_module, "create_private", create_second)

    assert read_or_create_keys(path) == [GOOD]


def test_keys_keep_their_order(tmp_path: Path) -> None:
    """One key a line, the first of which signs; comments, blank lines and Windows line ends are no keys."""
    path = secret_file(tmp_path, f"# new\r\n{GOOD}\r\n\r\n  # old\n  {OTHER}  \n")

    assert read_or_create_keys(path) == [GOOD, OTHER]


def test_reading_makes_nothing(tmp_path: Path) -> None:
    """Whoever only looks leaves no file behind."""
    with pytest.raises(FileNotFoundError):
        read_keys(tmp_path / "secret.keys")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "has no signing key"),
        ("# only a comment\n\n", "has no signing key"),
        (GOOD[:31], "shorter than 32 bytes"),
        (f"{GOOD}\ntiny-key", "key 2 in .* is shorter than 32 bytes"),
        ("a" * 64, "is not random"),
        ("ab" * 32, "is not random"),
        ("0123456789abcdef" * 4, "is not random"),
        (GOOD[:12] * 4, "is not random"),
        ("abcdefghijklmnopqrstuvwxyz0123456789", "is not random"),
        ("zyxwvutsrqponmlkjihgfedcba9876543210", "is not random"),
        ("change-me-" + GOOD, "is not random"),
        ("My-Secret-Key-For-Sessions-12345678", "is not random"),
        ("__TODO:_GENERATE_YOUR_OWN_RANDOM_VALUE_HERE__", "is not random"),
        ("61oETzKXQAGaYdkL5gEmGeJJFuYh7EQnp2XdTP1o/Vo=", "is not random"),
        ("11oETzKXQAGaYdkL5gEmGeJJFuYh7EQnp2XdTP1o/Vo=", "is not random"),
        ("bZJc2sWbQLKos6GkHn/VB9oXwQt8S0R0kRvJ5/xJ89E=", "is not random"),
        (f"{GOOD}\n{GOOD}", "same version"),
        (b"\xff\xfe" + GOOD.encode(), "is not a text file"),
    ],
)
def test_unfit_file_is_refused_without_repeating_it(
    tmp_path: Path, content: str | bytes, reason: str
) -> None:  # L1 L2 L8
    """Empty, short, weak and published keys stop the start with a line that holds none of them."""
    path = secret_file(tmp_path, content)

    message = refusal(path)

    assert re.search(reason, message)
    assert str(path) in message
    assert "\n" not in message
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    assert not any(line.strip() and line.strip() in message for line in text.splitlines())


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:  # L3
    """A good key in a file with a wrong mode is not used."""
    path = secret_file(tmp_path, GOOD)
    path.chmod(0o644)

    assert refusal(path) == f"{path} is accessible to other users: chmod 600 {path}"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """A directory in the place of the file is told as such."""
    assert refusal(tmp_path) == f"{tmp_path} is not a regular file"


def test_place_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    """Where no file can be made, the system's own reason is passed on."""
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        read_or_create_keys(tmp_path / "file" / "secret.keys")


@pytest.mark.parametrize(
    "make",
    [
        lambda: secrets.token_urlsafe(32),
        lambda: secrets.token_urlsafe(48),
        lambda: secrets.token_hex(16),
        lambda: secrets.token_hex(32),
        lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
    ],
)
def test_random_keys_of_any_form_are_taken(tmp_path: Path, make: object) -> None:
    """Whatever generator an operator uses, a hundred of its keys are all accepted."""
    assert callable(make)
    wanted = [make() for _ in range(100)]

    assert [read_or_create_keys(secret_file(tmp_path, key)) for key in wanted] == [[key] for key in wanted]
