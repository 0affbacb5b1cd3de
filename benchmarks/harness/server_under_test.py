"""Start a server under test in its own process, on its own core."""

from __future__ import annotations

import argparse
import os
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, generator
from benchmarks.harness.client import start_sessions
from benchmarks.harness.generator import FAILED, Sample
from benchmarks.harness.login_server import cpu_time_s
from tests.support.backends import free_port
from tests.support.running import children_of

OURS = "stormcellar"
_START_S, _STOP_S = 300, 15


@dataclass(slots=True)
class ServerUnderTest:
    """A running server, and the cookies of its signed-in users."""

    name: str
    store: str
    port: int
    pid: int
    cookies: list[str] = field(default_factory=list)
    """Sessions whose ID does not change."""
    rotating: list[str] = field(default_factory=list)
    """Sessions for logins, which rotate the ID."""
    query: str = ""
    """Query of /start; only our own application has one."""

    def add_sessions(self, count: int) -> None:
        """Start sessions until there are *count* of both kinds; a login sample can lose some of its own."""
        for held in (self.cookies, self.rotating):
            held += start_sessions(self.port, max(0, count - len(held)), self.query)

    def sample(self, kind: str, options: argparse.Namespace, *, connections: int | None = None) -> Sample:
        """Send one *kind* of request for `options.seconds`.

        Returns:
            FAILED if an error occurs, for example because the server ended; the error is printed.
        """
        try:
            return self._sample(kind, options, connections or options.connections)
        except (RuntimeError, OSError, HTTPException, subprocess.SubprocessError) as exc:
            self.rotating.clear()  # it is unknown which of these IDs are still valid
            print(f"{self.name} with {self.store}: {kind}: {exc}", file=sys.stderr, flush=True)
            return FAILED

    def _sample(self, kind: str, options: argparse.Namespace, connections: int) -> Sample:
        rotates = kind == "login"
        if rotates:
            self.add_sessions(len(self.cookies))
        before_s = self._cpu_time_s()
        sample = generator.send(
            options.generator,
            self.port,
            f"/{kind}",
            self.rotating if rotates else self.cookies,
            connections=connections,
            seconds=options.seconds,
            rotates=rotates,
        )
        return replace(sample, server_s=self._cpu_time_s() - before_s)

    def rss_bytes(self) -> int:
        """Return the resident memory of the process."""
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.M)
        assert found, "proc(5) lists VmRSS for every user process"
        return 1024 * int(found[1])

    def _cpu_time_s(self) -> float:
        """Return the CPU time of the process and its children; gunicorn's worker is a child."""
        return sum(map(cpu_time_s, [self.pid, *children_of(self.pid)]))


def app_command(url: str, port: int, *more: str) -> list[str]:
    """Return the command that starts our own application."""
    return [sys.executable, "-m", "benchmarks.harness.app", f"--store={url}", f"--port={port}", *more]


def reserve_core() -> tuple[int, ...]:
    """Reserve the first core for the server under test; move this process to the other cores.

    Returns:
        The reserved core; empty if this machine has only one core.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return ()
    os.sched_setaffinity(0, others)
    return (first,)


@contextmanager
def start_server(
    name: str, store: str, command: Sequence[str], *, port: int, cores: Sequence[int] = ()
) -> Iterator[ServerUnderTest]:
    """Run *command*, which listens on *port*.

    Raises:
        RuntimeError: The command did not print `ready`.
    """
    with (
        tempfile.TemporaryFile("w+") as errors,
        _popen(command, cores, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            if not _is_ready(process):
                errors.seek(0)
                raise RuntimeError(f"{name} with {store} did not start: {errors.read()[-1000:].strip()}")
            yield ServerUnderTest(name, store, port, process.pid)
        finally:
            _stop(process)


@contextmanager
def start_app(store: str, url: str, *more: str, cores: Sequence[int] = ()) -> Iterator[ServerUnderTest]:
    """Run our own application on a free port."""
    port = free_port()
    with start_server(OURS, store, app_command(url, port, *more), port=port, cores=cores) as started:
        yield started


def _popen(command: Sequence[str], cores: Sequence[int], **options: Any) -> subprocess.Popen[bytes]:
    """Start *command* on *cores*: a child process inherits the affinity of the thread that starts it."""
    before = os.sched_getaffinity(0) if cores else ()
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        return subprocess.Popen(command, cwd=ROOT, **options)
    finally:
        if before:
            os.sched_setaffinity(0, before)


def _is_ready(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout is not None
    can_read, _, _ = select.select([process.stdout], [], [], _START_S)
    return bool(can_read) and process.stdout.readline().startswith(b"ready")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
