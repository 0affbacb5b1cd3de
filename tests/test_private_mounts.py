"""Files with secrets as Kubernetes and Debian mount them: of root, readable by a group of the server."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stormcellar import private_files as files
from stormcellar.runtime.signing_key_file import new_key
from tests.support.certificates import Authority
from tests.support.running import ROOT, environment

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")

SERVER, OURS, STRANGERS = 1000, 4711, 4712

# It imports first: the user that it becomes may not be able to read the modules.
READ = """
import os, sys
from pathlib import Path
from stormcellar.private_files import describe, read_private
from stormcellar.runtime.signing_key_file import read_keys
from stormcellar.runtime.tls import KeyPair
path, user, *groups = sys.argv[1:]
if int(user) != os.geteuid():
    os.setgroups([int(group) for group in groups])
    os.setgid(int(user))
    os.setuid(int(user))
try:
    {read}
except (OSError, ValueError) as exc:
    print(describe(exc), end="")
"""
MOUNT = 'mount -t tmpfs tmpfs "$0" && umask 022 && echo -n content > "$0/key" && chmod $1 "$0/key" && '
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


def can_mount() -> bool:
    """Whether this user may mount a file system in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    mount = [*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
    return subprocess.run(mount, capture_output=True).returncode == 0


def told(
    path: Path,
    user: int = SERVER,
    groups: Sequence[int] = (OURS,),
    *,
    read: str = "print(read_private(Path(path)).decode(), end='')",
    before: Sequence[str] = (),
) -> str:
    """Return the content of the file, or the error, as another process reads it.

    Args:
        read: What the process does.
        before: The command that runs it.
    """
    argv = [*before, sys.executable, "-c", READ.replace("{read}", read), str(path), str(user)]
    done = subprocess.run(
        [*argv, *map(str, groups)], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's is private."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.fixture
def secret(folder: Path) -> Path:
    """A file behind links, as a Secret is mounted."""
    (folder / "..2026").mkdir()
    (folder / "..data").symlink_to("..2026")
    (folder / "..data" / "key").write_text("content")
    (folder / "key").symlink_to("..data/key")
    return folder / "key"


def give(path: Path, owner: int, group: int, mode: int) -> None:
    """Set the owner, the group and the mode of what *path* leads to."""
    os.chown(path, owner, group)
    path.chmod(mode)


@as_root
@pytest.mark.parametrize(
    ("owner", "mode"), [(0, 0o440), (0, 0o640), (SERVER, 0o400), (SERVER, 0o600), (SERVER, 0o440)]
)
def test_file_of_root_and_our_group_or_of_ours_is_read(secret: Path, owner: int, mode: int) -> None:  # L3
    """`root:GROUP 0440` (Kubernetes with fsGroup) and `root:ssl-cert 0640` (Debian) are read."""
    give(secret, owner, OURS, mode)

    assert told(secret) == "content"


@as_root
@pytest.mark.parametrize("mode", [0o440, 0o640])
@pytest.mark.parametrize("owner", [0, SERVER])
def test_file_of_a_group_that_is_not_ours_is_refused(secret: Path, owner: int, mode: int) -> None:  # L3
    """The right of the group is of no use to the server, whether it can open the file or not."""
    give(secret, owner, STRANGERS, mode)

    assert told(secret) == (
        f"{secret} is readable by group {STRANGERS}, which the server is not in: "
        f"add its user to this group, or in Kubernetes set fsGroup to it; else chmod g= {secret}"
    )


@as_root
@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_file_that_root_alone_may_read_is_told_with_advice(secret: Path, mode: int) -> None:
    """`defaultMode: 0400` is for a server that runs as root."""
    give(secret, 0, OURS, mode)

    assert told(secret) == (
        f"{secret} is not readable by this user: give it mode 0440 and a group of the server; in Kubernetes "
        "set defaultMode: 0440 and fsGroup"
    )


@as_root
@pytest.mark.parametrize("mode", [0o444, 0o644, 0o604, 0o666, 0o602, 0o460, 0o620, 0o450])
def test_more_than_reading_by_the_group_is_refused(secret: Path, mode: int) -> None:  # L3
    """The message says what to do, also where nobody can change the mode: a Secret of Kubernetes."""
    give(secret, 0, OURS, mode)

    assert told(secret) == (
        f"{secret} is accessible to other users: give it mode 0440 and a group of the server; in Kubernetes "
        "set defaultMode: 0440 and fsGroup"
    )


@as_root
def test_file_of_another_owner_is_refused_in_spite_of_the_group(secret: Path) -> None:
    """Who owns a file can change it, so it is root or this user."""
    give(secret, 4321, OURS, 0o440)
    for_the_group = told(secret)
    give(secret, 4321, OURS, 0o400)

    assert for_the_group == told(secret)
    assert for_the_group == f"{secret} belongs to another user: run this as uid 4321, or chown it"


@as_root
def test_own_file_without_rights_is_told_with_the_command(secret: Path) -> None:
    """Here the user can change the mode."""
    give(secret, SERVER, SERVER, 0o000)

    assert told(secret) == f"{secret} is not readable by this user: chmod 600 {secret}"


@as_root
def test_directory_that_may_not_be_entered_is_told(secret: Path) -> None:
    """The file in it is not judged, since nothing is known about it."""
    give(secret, 0, OURS, 0o440)
    secret.parent.chmod(0o700)

    assert told(secret) == f"{secret.parent}: Permission denied"


@pytest.mark.skipif(not can_mount(), reason="needs `unshare` and the right to mount in a namespace")
@pytest.mark.parametrize(
    ("mount", "advice"),
    [
        ("mount -o remount,ro", "mount it with mode 0400; in Kubernetes set defaultMode: 0400"),
        ("true", "chmod 600 {path}"),
    ],
    ids=["read-only", "writable"],
)
def test_root_is_told_what_it_can_do(folder: Path, mount: str, advice: str) -> None:
    """On a read-only mount root cannot change the mode: the default mode of a Secret is 0644."""
    shell = f'{MOUNT} {mount} "$0" && shift && exec "$@"'
    path = folder / "key"

    said = told(path, 0, before=[*UNSHARE, "sh", "-c", shell, str(folder), "644"])

    assert said == f"{path} is accessible to other users: {advice.format(path=path)}"


@pytest.mark.skipif(not can_mount(), reason="needs `unshare` and the right to mount in a namespace")
def test_root_reads_a_secret_that_is_mounted_as_advised(folder: Path) -> None:
    """With `defaultMode: 0400` a server that runs as root starts."""
    shell = f'{MOUNT} mount -o remount,ro "$0" && shift && exec "$@"'

    assert told(folder / "key", 0, before=[*UNSHARE, "sh", "-c", shell, str(folder), "400"]) == "content"


@as_root
def test_new_file_stays_private(secret: Path) -> None:  # L3
    """What is written has mode 0600, also in place of a file that a group may read."""
    give(secret, 0, OURS, 0o440)

    files.replace_private(secret, "new")

    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@as_root
def test_signing_key_and_tls_key_are_taken_from_a_mount(secret: Path, folder: Path) -> None:  # L3 L9
    """Both are read behind the links, with the mode of Kubernetes and with that of Debian."""
    pair = Authority(folder).issue()
    secret.write_text(new_key() + "\n")
    give(secret, 0, OURS, 0o440)
    give(pair.key, 0, OURS, 0o640)
    pair.certificate.chmod(0o644)

    assert told(secret, read="print(len(read_keys(Path(path))))") == "1\n"
    load = f"KeyPair(Path({str(pair.certificate)!r}), Path(path)).load(); print('loaded')"
    assert told(pair.key, read=load) == "loaded\n"
