"""One parent, several children: started, replaced, stopped once, and never left behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest
from tornado.netutil import add_accept_handler, bind_sockets

from stormcellar.runtime.process_group import SharedSocket, blocked_signals, shared_socket, unblock_signals
from tests.support.running import WAIT_S, children_of, environment, is_running


class Family:
    """`tests.support.family` as a process, with the lines its members say."""

    def __init__(self, directory: Path, behaviour: str, count: int | str, **limits: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.family", behaviour, str(count), json.dumps(limits)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            env=environment(),
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.seen: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        self.errors = ""
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(WAIT_S)
        self._join()
        assert self.process.stdout is not None and self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(WAIT_S)

    def said(self, word: str, count: int = 1) -> list[str]:
        """Wait until *word* was said *count* times, and return what came after it each time."""
        while len(found := [line.partition(" ")[2] for line in self.seen if line.split()[0] == word]) < count:
            try:
                self.seen.append(self._lines.get(timeout=WAIT_S))
            except queue.Empty:
                raise AssertionError(
                    f"{word!r} was not said {count} times: {self.seen} {self.errors}"
                ) from None
        return found

    def started(self, count: int) -> list[int]:
        """Wait until *count* children have started, and return their process IDs."""
        return [int(pid) for pid in self.said("started", count)]

    def end(self, *numbers: int) -> int:
        """Send the signals and return the exit status; from then on every line is in `seen`."""
        for number in numbers:
            self.process.send_signal(number)
        status = self.process.wait(WAIT_S)
        self._join()
        while not self._lines.empty():
            self.seen.append(self._lines.get())
        return status


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Any]:
    """Start a family in a directory of its own; nobody of it outlives the test."""
    started: list[Family] = []

    def start(behaviour: str, count: int | str, **limits: float) -> Family:
        started.append(Family(tmp_path, behaviour, count, **limits))
        return started[-1]

    yield start
    for each in started:
        each.__exit__()


def until(condition: Any) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_to_the_parent_stops_all(family: Any, number: int) -> None:
    """Every child is told, all end well, and so does the parent."""
    parent = family("waits", 3)
    children = parent.started(3)

    assert parent.end(number) == 0
    assert sorted(map(int, parent.said("stopped", 3))) == sorted(children)
    assert not any(map(is_running, children))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_to_the_whole_group_stops_all_once(family: Any, tmp_path: Path, number: int) -> None:
    """Ctrl-C at a terminal, or a supervisor that signals every process, drains and does not kill."""
    parent = family("drains", 2)
    parent.said("ready", 2)
    os.killpg(parent.process.pid, number)
    parent.said("draining", 2)
    (tmp_path / "go").touch()

    assert parent.end() == 0
    assert len(parent.said("drained", 2)) == 2


def test_signal_before_anybody_is_ready_is_not_lost(family: Any) -> None:
    """A stop that comes while children are still being started ends them all, well."""
    parent = family("shoots", 5)

    assert parent.end() == 0
    assert len(parent.said("stopped")) == len(parent.said("started"))


def test_hangup_reaches_every_child(family: Any) -> None:  # L7
    """SIGHUP to the parent is noticed there first, then passed on; nobody ends."""
    parent = family("reloads", 3)
    children = parent.started(3)
    parent.said("ready", 3)
    parent.process.send_signal(signal.SIGHUP)

    assert sorted(map(int, parent.said("reloaded", 3))) == sorted(children)
    assert next(line for line in parent.seen if line.split()[0] in ("noticed", "reloaded")) == "noticed"
    assert parent.end(signal.SIGTERM) == 0


def test_hangup_before_a_child_is_ready_is_kept(family: Any, tmp_path: Path) -> None:  # L7
    """A child that was still starting obeys it as soon as it can."""
    (tmp_path / "wait").touch()
    parent = family("reloads", 2)
    parent.said("forked", 2)
    parent.process.send_signal(signal.SIGHUP)
    parent.said("noticed")
    (tmp_path / "wait").unlink()

    assert len(parent.said("reloaded", 2)) == 2
    assert parent.end(signal.SIGTERM) == 0


def test_hangup_during_a_drain_changes_nothing(family: Any, tmp_path: Path) -> None:
    """Who is told to stop is not told anything else, and is not killed by it."""
    parent = family("drains", 2)
    parent.said("ready", 2)
    parent.process.send_signal(signal.SIGTERM)
    parent.said("draining", 2)
    parent.process.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()

    assert parent.end() == 0
    assert not any(line.split()[0] == "noticed" for line in parent.seen)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once(family: Any, number: int) -> None:
    """Whoever asks twice does not wait for what is stuck."""
    parent = family("drains", 2)
    children = parent.started(2)
    parent.said("ready", 2)
    parent.process.send_signal(signal.SIGTERM)
    parent.said("draining", 2)

    assert parent.end(number) == 1
    assert not any(map(is_running, children))


def test_stuck_child_is_killed_in_the_end(family: Any) -> None:
    """A drain has an end, also where a child does not take note of it."""
    parent = family("stuck", 2, drain_s=0.05)
    children = parent.started(2)

    assert parent.end(signal.SIGTERM) == 1
    assert not any(map(is_running, children))


def test_alarm_of_a_replacement_kills_nobody(family: Any, tmp_path: Path) -> None:
    """A stop that comes just before the end of a pause drains the others; nobody is started any more."""
    parent = family("drains", 2, first_pause_s=0.2)
    first, other = parent.started(2)
    parent.said("ready", 2)
    os.kill(first, signal.SIGKILL)
    until(lambda: "starting another" in parent.errors)
    # Frozen until the alarm has rung too, it finds both signals waiting, and takes SIGINT first.
    os.kill(parent.process.pid, signal.SIGSTOP)
    time.sleep(0.25)
    parent.process.send_signal(signal.SIGINT)
    os.kill(parent.process.pid, signal.SIGCONT)

    assert parent.said("draining") == [str(other)]
    (tmp_path / "go").touch()
    assert parent.end() == 0
    assert len(parent.said("started")) == 2


def test_dead_child_is_replaced(family: Any) -> None:
    """A child that was killed has a successor, is taken note of, and leaves no zombie."""
    parent = family("drains", 2)
    first, other = parent.started(2)
    parent.said("ready", 2)
    os.kill(first, signal.SIGKILL)

    third = parent.started(3)[2]

    assert sorted(children_of(parent.process.pid)) == sorted([other, third])
    assert f"process {first} ended with status 137; starting another" in parent.errors


def test_all_dead_at_once_are_replaced(family: Any) -> None:
    """The signals of several deaths can come as one; every one of the dead has a successor."""
    parent = family("waits", 4)
    first = parent.started(4)
    os.kill(parent.process.pid, signal.SIGSTOP)
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(is_running, first)))
    os.kill(parent.process.pid, signal.SIGCONT)

    successors = parent.started(8)[4:]

    assert sorted(children_of(parent.process.pid)) == sorted(successors)
    assert parent.end(signal.SIGTERM) == 0


def test_killed_parent_leaves_nobody_behind(family: Any) -> None:
    """Children stop by themselves when their parent is gone, however it went."""
    parent = family("waits", 2)
    children = parent.started(2)

    assert parent.end(signal.SIGKILL) == -signal.SIGKILL
    until(lambda: not any(map(is_running, children)))


@pytest.mark.parametrize(("behaviour", "status"), [("fails", 3), ("raises", 1), ("ends", 1)])
def test_children_that_keep_ending_stop_the_server(family: Any, behaviour: str, status: int) -> None:
    """A supervisor is told, by the status, that starting again and again does not help."""
    parent = family(behaviour, 2, first_pause_s=0.001, max_restarts=5)

    assert parent.end() == status
    assert 6 <= len(parent.said("started")) <= 7
    assert "6 processes ended within 60 s; stopping" in parent.errors


def test_pauses_grow(family: Any) -> None:
    """Each replacement waits twice as long as the one before it, up to a limit."""
    parent = family("fails", 1, first_pause_s=0.01, longest_pause_s=0.04, max_restarts=5)
    parent.end()

    at = [float(each) for each in parent.said("at")]
    pauses = [after - before for before, after in pairwise(at)]
    assert len(pauses) == 5
    assert all(actual >= least for actual, least in zip(pauses, [0.01, 0.02, 0.04, 0.04, 0.04], strict=True))


def test_deaths_long_ago_are_forgotten(family: Any) -> None:
    """A child a day may be killed for years."""
    parent = family("waits", 1, first_pause_s=0.001, max_restarts=1, window_s=0.01)
    for number in range(1, 6):
        newest = parent.started(number)[-1]
        time.sleep(0.02)
        os.kill(newest, signal.SIGKILL)

    parent.started(6)

    assert parent.end(signal.SIGTERM) == 0


def test_status_of_a_drain_that_failed(family: Any) -> None:
    """The parent ends well only if all of its children did."""
    parent = family("breaks", 2)
    parent.started(2)

    assert parent.end(signal.SIGTERM) == 4


def test_exception_of_a_child_is_logged(family: Any) -> None:
    """What broke a child is told once for each, with its trace."""
    parent = family("raises", 1, max_restarts=0)

    assert parent.end() == 1
    assert parent.errors.count("RuntimeError: a child that breaks") == 1


def test_orphans_are_nobodys_children(family: Any) -> None:
    """As process 1 of a container the parent buries strangers without replacing them."""
    parent = family("orphans", 2)
    children = parent.started(2)
    until(lambda: sorted(children_of(parent.process.pid)) == sorted(children))

    assert parent.end(signal.SIGTERM) == 0
    assert len(parent.said("started")) == 2
    assert "ended with status" not in parent.errors


def test_parent_lets_go_of_the_sockets(family: Any, tmp_path: Path) -> None:
    """From the stop on the parent holds no listening socket in whose queue somebody could wait."""
    parent = family("drains", 1)
    parent.said("ready")
    files = Path(f"/proc/{parent.process.pid}/fd")
    before = [os.readlink(each) for each in files.iterdir()]
    parent.process.send_signal(signal.SIGTERM)
    parent.said("draining")
    after = [os.readlink(each) for each in files.iterdir()]
    (tmp_path / "go").touch()

    assert [sum(each.startswith("socket:") for each in found) for found in (before, after)] == [1, 0]
    assert parent.end() == 0


def test_buffers_of_the_parent_are_written_once(family: Any) -> None:
    """What the parent had not written yet when it forked is not written by each child too."""
    parent = family("waits", 3)
    parent.started(3)

    assert parent.end(signal.SIGTERM) == 0
    assert "".join(parent.seen).count("once") == 1


@pytest.mark.parametrize(("behaviour", "status"), [("ends", 0), ("fails", 3), ("raises", 1)])
def test_status_of_work_done_apart(family: Any, behaviour: str, status: int) -> None:
    """What was done in a child comes back as its exit status, an exception as 1."""
    parent = family(behaviour, "apart")

    assert parent.end() == status
    assert parent.said("returned") == [str(status)]


def test_failed_fork_is_tried_again(tmp_path: Path) -> None:
    """A machine that is out of processes for a moment costs a moment, not the server."""
    script = """
import logging, os, signal
from stormcellar.runtime.process_group import ProcessLimits, run_process_group, blocked_signals
fork, left = os.fork, [2]
def flaky():
    left[0] -= 1
    if left[0] >= 0:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = flaky
logging.basicConfig(format="%(message)s")
with blocked_signals():
    def work(stop):
        os.kill(os.getppid(), signal.SIGTERM)
        os.read(stop, 1)
        return 0
    raise SystemExit(run_process_group(1, work, limits=ProcessLimits(first_pause_s=0.001)))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), timeout=60
    )

    assert (ended.returncode, ended.stderr) == (
        0,
        "cannot start a process: Resource temporarily unavailable\n" * 2,
    )


def test_stop_signals_wait_while_they_are_held() -> None:
    """A signal that comes while nobody could handle it comes when somebody can; the mask is put back."""
    seen: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    before = {number: signal.signal(number, lambda n, _: seen.append(n)) for number in (2, 15)}
    try:
        with blocked_signals():
            # To this thread: another one, of another test, would let it through.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.pthread_kill(threading.get_ident(), number)
            held = list(seen)
            unblock_signals()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert (held, sorted(seen)) == ([], [signal.SIGINT, signal.SIGTERM])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


# --- one listening socket for all ---


def connected(listening: socket.socket, count: int) -> list[socket.socket]:
    """Return so many connections that wait in the queue of *listening*."""
    return [socket.create_connection(listening.getsockname(), WAIT_S) for _ in range(count)]


async def accepted(sockets: list[SharedSocket], count: int) -> list[int]:
    """Accept on all of *sockets* until there are *count* connections, and return how many each was given."""
    taken: list[list[socket.socket]] = [[] for _ in sockets]
    removers = [
        add_accept_handler(each, lambda connection, _, mine=mine: mine.append(connection))  # type: ignore[misc]
        for each, mine in zip(sockets, taken, strict=True)
    ]
    async with asyncio.timeout(WAIT_S):
        while sum(map(len, taken)) < count:  # noqa: ASYNC110  the loop's own turns are what is tested
            await asyncio.sleep(0)
    for remove in removers:
        remove()
    for connection in itertools.chain(*taken):
        connection.close()
    return list(map(len, taken))


@pytest.mark.gen_test
async def test_burst_is_shared_by_those_who_listen() -> None:
    """Of connections that come at once nobody takes all: each takes a few, then the next has a turn."""
    [listening] = bind_sockets(0, "127.0.0.1")
    sockets = [shared_socket(listening.dup()), shared_socket(listening)]
    clients = connected(sockets[0], 4 * SharedSocket.AT_ONCE)

    assert await accepted(sockets, len(clients)) == [2 * SharedSocket.AT_ONCE] * 2
    for each in (*clients, *sockets):
        each.close()


@pytest.mark.gen_test
async def test_whoever_listens_alone_takes_all() -> None:
    """What one socket did not hand out at first it does in the next turns, to the last."""
    [listening] = bind_sockets(0, "127.0.0.1")
    alone = shared_socket(listening)
    clients = connected(alone, 3 * SharedSocket.AT_ONCE + 1)

    assert await accepted([alone], len(clients)) == [len(clients)]
    for each in (*clients, alone):
        each.close()
