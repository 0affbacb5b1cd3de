"""What a file must be: a wrong one is refused with advice, and never changed."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import Problem, StoreOptions, StoreRefused
from stormcellar.stores.conformance.cases import created, loaded
from stormcellar.stores.sqlite import SQLiteStore
from stormcellar.stores.sqlite.file import DatabaseFile
from stormcellar.stores.sqlite.schema import APPLICATION_ID, VERSION, prepare
from tests.stores.sqlite.conftest import OpenStore
from tests.support.running import ROOT


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.gen_test
async def test_files_are_private(open_sqlite: OpenStore, path: Path, umask: int) -> None:
    """The file, its log and its index of that can be read by their owner alone, whatever the umask."""
    before = os.umask(umask)
    try:
        store = open_sqlite()
        await created(store)
    finally:
        os.umask(before)

    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == dict.fromkeys([path.name, f"{path.name}-wal", f"{path.name}-shm"], 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.gen_test
async def test_file_that_root_creates_belongs_to_the_owner_of_the_directory(
    open_sqlite: OpenStore, path: Path
) -> None:
    """So `doctor`, run by root, takes nothing from the user of the server."""
    os.chown(path.parent, 1234, 2345)

    await open_sqlite().ping()

    owners = {(each.stat().st_uid, each.stat().st_gid) for each in path.parent.iterdir()}
    assert owners == {(1234, 2345)}


@pytest.mark.gen_test
async def test_log_is_gone_after_the_last_close(open_sqlite: OpenStore, path: Path) -> None:
    """A server that was stopped leaves one file, which can be copied."""
    first, second = open_sqlite(), open_sqlite()
    record = await created(first)
    await second.ping()

    await first.aclose()
    await second.aclose()

    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert await loaded(open_sqlite(), record.credential) == record


@pytest.mark.gen_test
async def test_link_leads_to_the_file(open_sqlite: OpenStore, path: Path) -> None:
    """A symbolic link is followed, also by the log, so link and file are one store."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    store = open_sqlite()
    record = await created(store)

    other = SQLiteStore.from_url(f"sqlite:{link}", StoreOptions())

    assert await loaded(other, record.credential) == record
    await other.aclose()


def test_empty_file_is_used(store: SQLiteStore, path: Path, io_loop: IOLoop) -> None:
    """A file without content, such as one that is mounted, becomes the store."""
    path.touch(mode=0o600)

    record = io_loop.run_sync(lambda: created(store))

    assert io_loop.run_sync(lambda: loaded(store, record.credential)) == record


def refusal(store: SQLiteStore, io_loop: IOLoop) -> Problem:
    """Return why the store is refused."""
    with pytest.raises(StoreRefused) as raised:
        io_loop.run_sync(store.ping)
    assert raised.value.problem is not None
    return raised.value.problem


@pytest.mark.parametrize("statement", range(4))
def test_file_that_another_process_prepares_meanwhile(path: Path, statement: int) -> None:
    """Before whichever statement the tables come to be, the file is known as ours."""
    path.touch(mode=0o600)
    seen: list[str] = []

    def prepare_once(sql: str) -> None:
        seen.append(sql)
        if len(seen) == statement + 1:
            DatabaseFile(path).connect(wait_s=1)[0].close()

    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.set_trace_callback(prepare_once)
        prepare(db, until_s=time.monotonic() + 5)
        db.set_trace_callback(None)

        assert db.execute("SELECT count(*) FROM sessions").fetchone() == (0,)


def foreign(path: Path) -> None:
    """Write a database of another program."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE sessions (id TEXT)")


def owned(path: Path) -> None:
    """Write an empty database that another program has marked as its own."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id = 7")


def newer(path: Path) -> None:
    """Write a database of a later version."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION + 1}")


def damaged(path: Path) -> None:
    """Write a database of ours with rubbish in its schema."""
    DatabaseFile(path).connect(wait_s=1)[0].close()
    content = bytearray(path.read_bytes())
    content[100:4000] = b"\xff" * 3900
    path.write_bytes(content)


def linked(path: Path) -> None:
    """Give an empty file a second name."""
    path.touch(mode=0o600)
    path.with_name("second.db").hardlink_to(path)


WRONG: list[tuple[Callable[[Path], object], str, str]] = [
    (lambda path: path.write_bytes(b"no database" * 100), "not an SQLite database", "another file"),
    (lambda path: path.mkdir(), "not a regular file", "another file"),
    (lambda path: os.mkfifo(path), "not a regular file", "another file"),
    (foreign, "another program", "another file"),
    (owned, "another program", "another file"),
    (newer, "newer version", "use that version"),
    (damaged, "damaged", "restore a backup"),
    (linked, "second name", "remove one"),
    (lambda path: path.parent.rmdir(), "directory of the SQLite file does not exist", "create it"),
    (
        lambda path: path.with_name(f"{path.name}-wal").write_bytes(b"x"),
        "log of the old one",
        "-wal and -shm",
    ),
]


@pytest.mark.parametrize(("make", "what", "advice"), WRONG)
def test_wrong_file_is_refused_and_left_alone(
    make: Callable[[Path], object], what: str, advice: str, store: SQLiteStore, path: Path, io_loop: IOLoop
) -> None:
    """What is wrong and what to do is told, and the file stays as it is."""
    make(path)
    if path.is_file():
        path.chmod(0o600)
    before = path.read_bytes() if path.is_file() else None

    problem = refusal(store, io_loop)

    assert what in problem.what
    assert advice in problem.advice
    assert (path.read_bytes() if path.is_file() else None) == before


def test_store_serves_when_the_fault_is_mended(store: SQLiteStore, path: Path, io_loop: IOLoop) -> None:
    """After a refusal the next call tries again, without a restart."""
    foreign(path)
    path.chmod(0o600)
    refusal(store, io_loop)

    path.unlink()

    io_loop.run_sync(store.ping)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601])
def test_mode_for_others_is_refused(store: SQLiteStore, path: Path, io_loop: IOLoop, mode: int) -> None:
    """Others may have no right to the file."""
    path.touch()
    path.chmod(mode)

    assert refusal(store, io_loop).advice == f"chmod o= {path}"


def test_group_may_have_rights(store: SQLiteStore, path: Path, io_loop: IOLoop) -> None:
    """Kubernetes gives them to the group of `fsGroup`, for all files of a volume, at each mount."""
    path.touch()
    path.chmod(0o660)

    io_loop.run_sync(store.ping)


# It imports first: the user that it becomes may not be able to read the modules.
PING_AS = """
import asyncio, os, sys
from stormcellar.stores import StoreUnavailable, open_store
store = open_store("sqlite:" + sys.argv[1])
if os.geteuid() == 0:
    os.setgid(1234)
    os.setuid(1234)
async def main():
    try:
        await store.ping()
    except StoreUnavailable as exc:
        print(type(exc).__name__, exc.problem)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("directory_mode", "file_mode"),
    [(0o700, 0o000), (0o700, 0o400), (0o500, None), (0o500, 0o600), (0o000, 0o600)],
)
def test_missing_right_is_told(directory_mode: int, file_mode: int | None) -> None:
    """A file or directory that this user may not write is refused with advice."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "sessions.db")
        if file_mode is not None:
            DatabaseFile(path).connect(wait_s=1)[0].close()
            path.chmod(file_mode)
        if os.geteuid() == 0:
            for each in (path.parent, *path.parent.iterdir()):
                os.chown(each, 1234, 1234)
        path.parent.chmod(directory_mode)

        ended = subprocess.run(
            [sys.executable, "-c", PING_AS, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        path.parent.chmod(0o700)

    assert ended.stdout.startswith(
        "StoreRefused the SQLite file is read-only for this user; change the owner"
    )
