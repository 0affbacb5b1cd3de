"""The server as a process: its banner, logs and exit status. Also a store whose writes can wait."""

from __future__ import annotations

import asyncio
import os
import queue
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any, Self

from stormcellar.stores import Credential, Delta, Outcome, StoreOptions
from stormcellar.stores.memory import MemoryStore

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0

# Like `python run.py`, but always with asyncio's default loop.
WITHOUT_UVLOOP = (
    "import sys; sys.modules['uvloop'] = None; from stormcellar.cli.main import main; sys.exit(main())"
)


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with only those STORMCELLAR_ variables that are in *settings*."""
    drop = ("STORMCELLAR_", "PYTHONUNBUFFERED")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    return {**clean, **settings, "PYTHONPATH": str(ROOT)}


class Running:
    """One server; a context manager that kills its processes at the end.

    Args:
        directory: Its data directory and its working directory.
        program: Arguments of Python instead of `run.py`.
    """

    wrapper: tuple[str, ...] = ()
    """A command that runs the server."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        program: tuple[str, ...] = (str(ROOT / "run.py"),),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._errors = (directory / "stderr").open("a+")
        self.process = subprocess.Popen(
            [
                *(*self.wrapper, sys.executable, *program),
                *("--data-dir", str(directory / "data"), "--port", "0", *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=directory,
            env=environment(**variables or {}),
            # A new process group, so that tests can signal it like a terminal.
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> str:
        """Return the next line of standard output."""
        try:
            return self._lines.get(timeout=WAIT_S)
        except queue.Empty:
            raise AssertionError(f"no output; on standard error: {self.errors()}") from None

    def base(self) -> str:
        """Return its base URL from the first line of output."""
        found = re.search(r"https?://\S+?(?=,)", self.line())
        assert found is not None
        return found[0]

    def demo_password(self) -> str:
        """Return the demo password from the second line of output."""
        found = re.fullmatch(r"Demo account: user name demo, password (\S+)", self.line())
        assert found is not None
        return found[1]

    def errors(self) -> str:
        """Return its standard error so far."""
        return Path(self._errors.name).read_text()

    def children(self) -> list[int]:
        """Return the IDs of its child processes."""
        return children_of(self.process.pid)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(WAIT_S)


def children_of(pid: int) -> list[int]:
    """Return the IDs of the child processes of *pid*; none if it has ended."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_running(pid: int) -> bool:
    """Whether the process *pid* runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def connect(base: str, trusted: Path | None = None) -> HTTPConnection:
    """Return a connection to *base*; *trusted* is the CA file for TLS."""
    scheme, _, host = base.partition("://")
    if scheme == "http":
        return HTTPConnection(host, timeout=WAIT_S)
    return HTTPSConnection(host, timeout=WAIT_S, context=ssl.create_default_context(cafile=trusted))


def get(base: str, path: str, *, trusted: Path | None = None, **headers: str) -> int:
    """Return the status of a GET on a new connection."""
    connection = connect(base, trusted)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for *what* another process does; raise AssertionError if it takes too long."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {WAIT_S:.0f} s"
        time.sleep(0.02)


class GatedStore(MemoryStore):
    """A store whose writes wait for a file: `--store=tests.support.running:GatedStore?DIRECTORY`.

    A write creates the file `reached`, waits for the file `go`, and creates `applied` when it is done.
    The store claims to be shared, so that each of several processes can have one.
    """

    shared = True
    directory: Path

    @classmethod
    def from_url(cls, url: str, options: StoreOptions) -> Self:
        """Return a store controlled by the files in the directory after the `?`."""
        store = super().from_url("memory:", options)
        store.directory = Path(url.partition("?")[2])
        return store

    async def apply(self, credential: Credential, delta: Delta, **times: Any) -> Outcome:  # type: ignore[override]
        """Wait for the file `go`, then write."""
        (self.directory / "reached").touch()
        while not (self.directory / "go").exists():  # noqa: ASYNC110  the other side is another process
            await asyncio.sleep(0.01)
        outcome = await super().apply(credential, delta, **times)
        (self.directory / "applied").write_text(outcome.name)
        return outcome
