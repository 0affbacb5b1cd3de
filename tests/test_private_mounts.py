"""Files with secrets as Kubernetes and Debian mount them: of root, readable by a group of this process."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stormcellar import private_files as files
from stormcellar.runtime.signing_key_file import new_key, read_keys
from stormcellar.runtime.tls import KeyPair
from tests.support.certificates import Authority

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")

OURS, STRANGERS = 4711, 4712


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file behind links, as a Secret is mounted; this process is in the group `OURS`."""
    monkeypatch.setattr(os, "getgroups", lambda: [OURS])
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "..data" / "key").write_text("content")
    (tmp_path / "key").symlink_to("..data/key")
    return tmp_path / "key"


def give(path: Path, owner: int, group: int, mode: int) -> None:
    """Set the owner, the group and the mode of what *path* leads to."""
    os.chown(path, owner, group)
    path.chmod(mode)


@pytest.mark.parametrize("mode", [0o440, 0o640, 0o400, 0o600])
def test_file_of_root_and_our_group_is_read(secret: Path, mode: int) -> None:  # L3
    """`root:GROUP 0440` (Kubernetes with fsGroup) and `root:ssl-cert 0640` (Debian) are read."""
    give(secret, 0, OURS, mode)

    assert files.read_private(secret) == b"content"


@pytest.mark.parametrize("mode", [0o440, 0o640])
def test_file_of_a_group_that_is_not_ours_is_refused(secret: Path, mode: int) -> None:  # L3
    """Without the group this process does not need the right of the group, so others have it."""
    give(secret, 0, STRANGERS, mode)

    with pytest.raises(ValueError) as refused:
        files.read_private(secret)

    assert str(refused.value) == (
        f"{secret} is readable by group {STRANGERS}, which the server is not in: "
        f"add its user to this group, or in Kubernetes set fsGroup to it; else chmod g= {secret}"
    )


@pytest.mark.parametrize("mode", [0o444, 0o644, 0o604, 0o666, 0o602, 0o460, 0o620, 0o450])
def test_more_than_reading_by_the_group_is_refused(secret: Path, mode: int) -> None:  # L3
    """The message says what to do, also where nobody can change the mode: a Secret of Kubernetes."""
    give(secret, 0, OURS, mode)

    with pytest.raises(ValueError) as refused:
        files.read_private(secret)

    assert str(refused.value) == (
        f"{secret} is accessible to other users: chmod 440 {secret}, or in Kubernetes set defaultMode: 0440"
    )


def test_file_of_another_owner_is_refused_in_spite_of_the_group(secret: Path) -> None:
    """Who owns a file can change it, so it is root or this user."""
    give(secret, 4321, OURS, 0o440)

    with pytest.raises(ValueError, match="belongs to another user"):
        files.read_private(secret)


def test_new_file_stays_private(secret: Path) -> None:  # L3
    """What is written has mode 0600, also in place of a file that a group may read."""
    give(secret, 0, OURS, 0o440)

    files.replace_private(secret, "new")

    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_signing_key_and_tls_key_are_taken_from_a_mount(secret: Path, tmp_path: Path) -> None:  # L3 L9
    """Both are read behind the links, with the mode of Kubernetes and with that of Debian."""
    pair = Authority(tmp_path).issue()
    secret.write_text(new_key() + "\n")
    give(secret, 0, OURS, 0o440)
    give(pair.key, 0, OURS, 0o640)

    assert len(read_keys(secret)) == 1
    KeyPair(pair.certificate, pair.key).load()
