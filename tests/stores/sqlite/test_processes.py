"""Several processes share a file, and a process that is killed loses nothing that it has answered."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from stormcellar.stores import Absent, Credential, Handle, Record, Verifier, Why
from stormcellar.stores.conformance.cases import (
    NOW,
    created,
    loaded,
    new_record,
    new_user,
    scanned,
)
from stormcellar.stores.sqlite import SQLiteStore
from tests.support.running import ROOT

PROCESSES = 4

BEGIN = """
import asyncio, sys
from stormcellar.stores import Credential, Delta, Outcome, Rule, open_store
from stormcellar.stores.conformance.cases import NOW, new_record, new_verifier, rotated
path, handle, verifier, number = sys.argv[1:]
credential = Credential(handle, verifier)
store = open_store(f"sqlite:{path}", timeout_s=20)
print("ready", flush=True)
sys.stdin.readline()
"""

# Each adds 50 to one value by compare-and-set, writes 20 keys of its own, and takes 20 of one tally. Then one
# of all signs in, and one of all destroys.
RACE = (
    BEGIN
    + """
async def add():
    for _ in range(50):
        outcome = None
        while outcome is not Outcome.APPLIED:
            before = (await store.load(credential, now_ms=NOW)).data["n"]
            delta = Delta(put={"n": b"%d" % (int(before) + 1)}, expect={"n": before})
            outcome = await store.apply(credential, delta, now_ms=NOW, expires_ms=None)
async def main():
    await add()
    for key in range(20):
        put = {f"key{number}_{key}": b"1"}
        assert await store.apply(credential, Delta(put=put), now_ms=NOW, expires_ms=None) is Outcome.APPLIED
    rule = Rule(limit=30, first_wait_ms=9000, longest_wait_ms=9000, keep_ms=90000)
    tallies = await asyncio.gather(*(store.counters().take("key", rule, now_ms=NOW) for _ in range(20)))
    print("taken", sum(tally.taken for tally in tallies), flush=True)
    sys.stdin.readline()
    outcome = await rotated(store, credential, new_verifier(), user="one")
    print("rotated", outcome.name, flush=True)
    sys.stdin.readline()
    print("destroyed", await store.destroy(handle, now_ms=NOW), flush=True)
    await store.aclose()
asyncio.run(main())
"""
)

# Creates sessions, and prints the ID of each as soon as it is answered, until it is killed. Every third one
# it destroys, and then prints a second time.
WRITE = (
    BEGIN
    + """
async def write():
    count = 0
    while True:
        record = new_record(user="one")
        await store.create(record)
        print(*record.credential, flush=True)
        count += 1
        if count % 3 == 0:
            await store.destroy(record.handle, now_ms=NOW)
            print(*record.credential, flush=True)
async def main():
    await asyncio.gather(*(write() for _ in range(8)))
asyncio.run(main())
"""
)


@contextmanager
def running(program: str, path: Path, credential: Credential, number: int) -> Iterator[subprocess.Popen[str]]:
    """Run *program* until it waits for its first line; kill it at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path), *credential, str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert line_of(process) == "ready"
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line that *process* prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_ended(found: Record | Absent) -> bool:
    """Return whether there is a tombstone. Its time is that of another process."""
    return isinstance(found, Absent) and found.why is Why.ENDED


def go_on(processes: list[subprocess.Popen[str]]) -> None:
    """Give each of *processes* a line."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def test_processes_race_without_a_loss(path: Path, store: SQLiteStore, io_loop: IOLoop) -> None:
    """No write is lost, no tally passes its limit, and of parallel rotations and destroys one succeeds."""
    record = io_loop.run_sync(lambda: created(store, data={"n": b"0"}))
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running(RACE, path, record.credential, number)) for number in range(PROCESSES)
        ]

        go_on(processes)
        taken = [line_of(process) for process in processes]
        data = io_loop.run_sync(lambda: loaded(store, record.credential)).data
        go_on(processes)
        rotated = [line_of(process) for process in processes]
        go_on(processes)
        destroyed = [line_of(process) for process in processes]

    assert sum(int(line.removeprefix("taken ")) for line in taken) == 30
    assert int(data["n"]) == 50 * PROCESSES
    assert len(data) == 1 + 20 * PROCESSES
    assert sorted(rotated) == ["rotated APPLIED"] + ["rotated GONE"] * (PROCESSES - 1)
    assert sorted(destroyed) == ["destroyed False"] * (PROCESSES - 1) + ["destroyed True"]
    assert is_ended(io_loop.run_sync(lambda: store.load(record.credential, now_ms=NOW)))


def test_processes_that_open_a_new_file_at_once_share_it(
    path: Path, store: SQLiteStore, io_loop: IOLoop
) -> None:
    """Of processes that all find no file each creates its session in the one that comes to be."""
    program = BEGIN + "asyncio.run(store.create(new_record()))\nprint('created', flush=True)"
    unused = new_record().credential
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running(program, path, unused, number)) for number in range(PROCESSES)
        ]

        go_on(processes)
        lines = [line_of(process) for process in processes]

    assert lines == ["created"] * PROCESSES
    assert len(io_loop.run_sync(lambda: scanned(store))) == PROCESSES


@pytest.mark.parametrize("lines", [1, 40, 200])
def test_killed_process_loses_nothing_that_it_answered(
    path: Path, store: SQLiteStore, io_loop: IOLoop, lines: int
) -> None:
    """After SIGKILL in the middle of writes, sessions and tombstones that were answered are there."""
    with running(WRITE, path, new_record().credential, 0) as process:
        go_on([process])
        said = [line_of(process) for _ in range(lines)]
        process.kill()
        assert process.stdout is not None
        said += process.stdout.read().splitlines()
    answered = [tuple(line.split()) for line in said if len(line.split()) == 2]

    async def check() -> None:
        for handle, verifier in set(answered):
            found = await store.load(Credential(Handle(handle), Verifier(verifier)), now_ms=NOW)
            if answered.count((handle, verifier)) == 2:
                assert is_ended(found)
            else:
                # Its destroy may have been done and not yet told.
                assert is_ended(found) or isinstance(found, Record)
        assert len(await store.of_user("one", now_ms=NOW)) >= len(answered) // 4
        await created(store, user=new_user())

    io_loop.run_sync(lambda: asyncio.wait_for(check(), 30))
    assert len(answered) >= lines
