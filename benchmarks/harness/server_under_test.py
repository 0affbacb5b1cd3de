"""Start a subject in a process of its own, on a core of its own."""

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
from benchmarks.harness import client as visitor
from benchmarks.harness.generator import FAILED, Sample
from benchmarks.harness.login_server import cpu_time_s
from tests.support.backends import free_port
from tests.support.running import children_of

OURS = "stormcellar"
_START_S, _STOP_S = 300, 15


@dataclass(slots=True)
class Subject:
    """A running server, and the cookies of those who are signed in to it."""

    name: str
    store: str
    port: int
    pid: int
    cookies: list[str] = field(default_factory=list)
    """Sessions that stay as they are."""
    rotating: list[str] = field(default_factory=list)
    """Sessions for logins, which change them."""
    query: str = ""
    """Says to our own /start what sessions are to be."""

    def fill(self, count: int) -> None:
        """Have *count* sessions of each sort; a stretch of logins leaves a few fewer than it was given."""
        for held in (self.cookies, self.rotating):
            held += visitor.begin(self.port, max(0, count - len(held)), self.query)

    def sample(self, kind: str, options: argparse.Namespace, *, connections: int | None = None) -> Sample:
        """Send one *kind* of request for a while, as the *options* of the command line say.

        Returns:
            FAILED if that did not work out at all, which is told: the server may have ended.
        """
        try:
            return self._sample(kind, options, connections or options.connections)
        except (RuntimeError, OSError, HTTPException, subprocess.SubprocessError) as exc:
            self.rotating.clear()  # which of them are still good is not known
            print(f"{self.name} with {self.store}: {kind}: {exc}", file=sys.stderr, flush=True)
            return FAILED

    def _sample(self, kind: str, options: argparse.Namespace, connections: int) -> Sample:
        rotates = kind == "login"
        if rotates:
            self.fill(len(self.cookies))
        before_s = self._spent_s()
        sample = generator.send(
            options.generator,
            self.port,
            f"/{kind}",
            self.rotating if rotates else self.cookies,
            connections=connections,
            seconds=options.seconds,
            rotates=rotates,
        )
        return replace(sample, server_s=self._spent_s() - before_s)

    def rss(self) -> int:
        """Return how many bytes of memory the process holds."""
        found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.M)
        assert found, "Linux tells it"
        return 1024 * int(found[1])

    def _spent_s(self) -> float:
        """Return the CPU time of the process and of its children; gunicorn's worker is one."""
        return sum(map(cpu_time_s, [self.pid, *children_of(self.pid)]))


def ours(url: str, port: int, *more: str) -> list[str]:
    """Return the command that starts our own subject."""
    return [sys.executable, "-m", "benchmarks.harness.app", f"--store={url}", f"--port={port}", *more]


def claim_cores() -> tuple[int, ...]:
    """Keep the first core for the subjects: this process, and what it starts, takes the others.

    Returns:
        The cores for subjects; nothing where there is but one.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return ()
    os.sched_setaffinity(0, others)
    return (first,)


@contextmanager
def subject(
    name: str, store: str, command: Sequence[str], *, port: int, cores: Sequence[int] = ()
) -> Iterator[Subject]:
    """Run *command*, which listens on *port*, in the meantime.

    Raises:
        RuntimeError: It did not say that it is ready.
    """
    with (
        tempfile.TemporaryFile("w+") as errors,
        _started(command, cores, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            if not _is_ready(process):
                errors.seek(0)
                raise RuntimeError(f"{name} with {store} did not start: {errors.read()[-1000:].strip()}")
            yield Subject(name, store, port, process.pid)
        finally:
            _end(process)


@contextmanager
def our_subject(store: str, url: str, *more: str, cores: Sequence[int] = ()) -> Iterator[Subject]:
    """Run our own subject in the meantime, on a free port."""
    port = free_port()
    with subject(OURS, store, ours(url, port, *more), port=port, cores=cores) as started:
        yield started


def _started(command: Sequence[str], cores: Sequence[int], **options: Any) -> subprocess.Popen[bytes]:
    """Start *command* on *cores*: a process begins where the thread that starts it may run."""
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


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
