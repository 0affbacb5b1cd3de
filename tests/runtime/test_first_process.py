"""The server as process 1 of a container: no signal works without a handler, and it gets all orphans."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import ROOT, WAIT_S, WITHOUT_UVLOOP, Running, children_of, get

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    """Whether this user may make a PID namespace."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not can_unshare(), reason="needs `unshare` and the right to make a PID namespace"
)

BOTH = pytest.mark.parametrize(
    ("processes", "program"),
    [
        ("1", (str(ROOT / "run.py"),)),
        ("1", ("-c", WITHOUT_UVLOOP)),
        ("2", (str(ROOT / "run.py"),)),
    ],
    ids=["one", "one, asyncio", "two"],
)


class First(Running):
    """A server that is process 1 of a PID namespace of its own."""

    wrapper = tuple(UNSHARE)

    def pid(self) -> int:
        """Return the process ID of the server outside its namespace."""
        [pid] = children_of(self.process.pid)
        return pid


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[str]:
    """The URL of a store whose writes wait; nothing waits after the test."""
    yield f"tests.support.running:GatedStore?{tmp_path}"
    (tmp_path / "go").touch()


def until(condition: object) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + WAIT_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@BOTH
def test_second_signal_ends_it_at_once(
    tmp_path: Path, gate: str, processes: str, program: tuple[str, ...]
) -> None:  # H10
    """The first one waits for the balancer; the kernel would drop the second one."""
    flags = (f"--store={gate}", f"--processes={processes}", "--drain=60s")
    with First(tmp_path, *flags, program=program) as server:
        base = server.base()
        os.kill(server.pid(), signal.SIGTERM)
        until(lambda: get(base, "/readyz") == 503)
        began = time.monotonic()
        os.kill(server.pid(), signal.SIGTERM)

        assert server.process.wait(WAIT_S) == (128 + signal.SIGTERM if processes == "1" else 1)
        assert time.monotonic() - began < 10


@BOTH
def test_orphans_are_reaped(tmp_path: Path, gate: str, processes: str, program: tuple[str, ...]) -> None:
    """A process whose parent has ended leaves no zombie."""
    with First(tmp_path, f"--store={gate}", f"--processes={processes}", program=program) as server:
        base, pid = server.base(), server.pid()
        until(lambda: get(base, "/healthz") == 200)
        before = len(children_of(pid))
        inside = ["nsenter", "-t", str(pid), "-p", "sh", "-c", "sleep 0.2 & sleep 0.2 & sleep 0.2 &"]
        subprocess.run(inside, check=True)
        until(lambda: len(children_of(pid)) > before)

        until(lambda: len(children_of(pid)) == before)
