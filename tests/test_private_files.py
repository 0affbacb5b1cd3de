"""Files with secrets are private, are replaced whole, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stormcellar import private_files as files
from tests.support.running import ROOT, environment


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let new files be readable by all, unless their maker sees to it."""
    before = os.umask(0)
    yield
    os.umask(before)


def private_file(path: Path, text: str = "content") -> Path:
    """Make a file that only its owner may read."""
    path.write_text(text)
    path.chmod(0o600)
    return path


def names_in(path: Path) -> list[str]:
    """Return what is in a directory, hidden files included."""
    return sorted(each.name for each in path.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_owner_only_is_read(tmp_path: Path, mode: int) -> None:
    """A file that nobody else may read is read."""
    path = private_file(tmp_path / "file")
    path.chmod(mode)

    assert files.read_private(path) == b"content"


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o644, 0o610, 0o666, 0o660])
def test_any_right_of_others_is_refused(tmp_path: Path, mode: int) -> None:  # L3
    """A right of others, and any but reading for the group, is refused with the command that mends it."""
    path = private_file(tmp_path / "file")
    path.chmod(mode)

    with pytest.raises(ValueError) as caught:
        files.read_private(path)

    assert str(caught.value) == f"{path} is accessible to other users: chmod 600 {path}"


def test_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns a file can read and change it, so it must be this user or root."""
    path = private_file(tmp_path / "file")
    if os.geteuid() == 0:
        os.chown(path, 4321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4321)

    with pytest.raises(ValueError, match="belongs to another user"):
        files.read_private(path)


def test_directory_is_refused(tmp_path: Path) -> None:
    """A directory is told as such, not with advice on its mode."""
    with pytest.raises(ValueError, match="is not a regular file"):
        files.read_private(tmp_path)


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    """A FIFO that nobody writes to does not stop the start."""
    os.mkfifo(tmp_path / "fifo", 0o600)

    with pytest.raises(ValueError, match="is not a regular file"):
        files.read_private(tmp_path / "fifo")


def test_link_to_a_private_file_is_followed(tmp_path: Path) -> None:
    """A secret mounted behind a symbolic link is judged by its target."""
    private_file(tmp_path / "target")
    (tmp_path / "link").symlink_to("target")

    assert files.read_private(tmp_path / "link") == b"content"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Reading and refusing both close what they opened."""
    path = private_file(tmp_path / "file")
    before = len(os.listdir("/dev/fd"))
    files.read_private(path)
    path.chmod(0o644)
    with pytest.raises(ValueError):
        files.read_private(path)

    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("write", [files.create_private, files.replace_private])
def test_new_file_is_private_whatever_the_umask(tmp_path: Path, write: object) -> None:  # L3
    """What is written has mode 0600, in a directory made with 0700, and no other file stays."""
    assert callable(write)
    write(tmp_path / "data" / "file", "text ü")

    path = tmp_path / "data" / "file"
    assert path.read_text(encoding="utf-8") == "text ü"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert names_in(path.parent) == ["file"]


def test_create_leaves_an_existing_file_alone(tmp_path: Path) -> None:
    """Of two that create, the second is told, and the first one's text stays."""
    files.create_private(tmp_path / "file", "first")

    with pytest.raises(FileExistsError):
        files.create_private(tmp_path / "file", "second")

    assert (tmp_path / "file").read_text() == "first"
    assert names_in(tmp_path) == ["file"]


def test_replace_does_not_touch_the_old_file(tmp_path: Path) -> None:
    """Whoever has the old file open reads it to its end; the name has the new one."""
    path = private_file(tmp_path / "file", "old")
    with path.open() as reader:
        files.replace_private(path, "new")

        assert (reader.read(), path.read_text()) == ("old", "new")


def test_replace_follows_a_link(tmp_path: Path) -> None:
    """A file kept elsewhere behind a link is replaced there, and the link stays."""
    (tmp_path / "kept").mkdir()
    private_file(tmp_path / "kept" / "file", "old")
    (tmp_path / "link").symlink_to("kept/file")

    files.replace_private(tmp_path / "link", "new")

    assert (tmp_path / "kept" / "file").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_each_replacement_is_later_than_the_one_before(tmp_path: Path) -> None:
    """The time of change moves on, also within one tick of the kernel's clock or after one in the future."""
    path = private_file(tmp_path / "file", "old")
    future_ns = time.time_ns() + 10**18
    os.utime(path, ns=(future_ns, future_ns))
    seen = [path.stat().st_mtime_ns]
    for number in range(5):
        files.replace_private(path, f"{number}")
        seen.append(path.stat().st_mtime_ns)

    assert seen == sorted(set(seen))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_leaves_a_file_to_its_owner(tmp_path: Path) -> None:
    """What root replaces can still be read by the server, which runs as another user."""
    path = private_file(tmp_path / "file", "old")
    os.chown(path, 4321, 4322)
    files.replace_private(path, "new")

    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4321, 4322, 0o600)


def test_lock_lets_one_through(tmp_path: Path) -> None:
    """The second waits until the first is done, and the lock makes the directory it needs."""
    path = tmp_path / "data" / "file"
    order = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with files.locked(path):
            order.append("second")

    with files.locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(30)
        thread.join(0.05)
        order.append("first")
    thread.join(30)

    assert order == ["first", "second"]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_replacement_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    """A full disk or an interrupt loses neither the old content nor leaves a half-written file."""
    path = private_file(tmp_path / "file", "old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)

    with pytest.raises(type(error)):
        files.replace_private(path, "new")

    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_killed_in_the_middle_leaves_the_old_file_alone(tmp_path: Path) -> None:
    """A process killed before the last step has changed nothing under the name."""
    path = private_file(tmp_path / "file", "old")
    script = (
        "import os, signal, sys; from pathlib import Path; "
        "from stormcellar import private_files as files;"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        "files.replace_private(Path(sys.argv[1]), 'new')"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, env=environment(), timeout=60)

    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "/dev/null"), "/dev/null: Permission denied"),
        (PermissionError(13, "Permission denied", "/dev/hunter2/file"), "/dev: Permission denied"),
        (NotADirectoryError(20, "Not a directory", "/dev/null/hunter2"), "/dev/null: Not a directory"),
        (FileNotFoundError(2, "No such file or directory", "/dev/hunter2"), "No such file or directory"),
        (OSError(36, "File name too long", "/dev/hunter2"), "File name too long"),
        (OSError("something odd"), "something odd"),
        (ValueError("two\nlines"), "two lines"),
    ],
)
def test_error_is_told_in_one_line(error: OSError | ValueError, line: str) -> None:  # L8
    """A person is shown the file and the reason, not an errno, and no name that does not exist."""
    assert files.describe(error) == line
