"""What the faults of the server itself need of its processes and their logs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.faults.site import Site
from tests.support.running import is_running, until


@asynccontextmanager
async def logged(log: Path, text: str, count: int = 1) -> AsyncIterator[None]:
    """Run the block, and wait until since its begin *log* got *text* *count* times."""
    size = os.stat(log).st_size
    yield
    await asyncio.to_thread(until, lambda: _since(log, size).count(text) >= count, f"{count} times {text!r}")


def _since(log: Path, size: int) -> str:
    with log.open("rb") as file:
        file.seek(size)
        return file.read().decode(errors="replace")


class LogPipe:
    """The pipe `log` in *directory*, and a reader that copies it to a file until it is told to stop.

    Use it while the event loop runs.
    """

    def __init__(self, directory: Path, copy: Path) -> None:
        os.mkfifo(directory / "log")
        # For reading and writing: it opens without a writer, and does not end with the last one.
        self._pipe = os.open(directory / "log", os.O_RDWR | os.O_NONBLOCK)
        self._copy = os.open(copy, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.read()

    def read(self) -> None:
        """Begin to read."""
        asyncio.get_running_loop().add_reader(self._pipe, self._take)

    def stop(self) -> None:
        """Stop reading, and fill the pipe with empty lines."""
        asyncio.get_running_loop().remove_reader(self._pipe)
        with suppress(BlockingIOError):
            while os.write(self._pipe, b"\n"):
                pass

    def close(self) -> None:
        """Close it; the file stays."""
        asyncio.get_running_loop().remove_reader(self._pipe)
        os.close(self._pipe)
        os.close(self._copy)

    def _take(self) -> None:
        os.write(self._copy, os.read(self._pipe, 65536))


async def freeze(pids: Sequence[int], seconds: float) -> None:
    """Stop processes for a while."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
        assert all(map(_is_stopped, pids)), "a process was not stopped"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def start_again(site: Site, number: int) -> int:
    """End the server of *site* by a signal, start it again at its port, and return its exit status."""
    children = site.running.children()
    status = await asyncio.to_thread(site.running.end, number)
    # Without their parent they finish what they do, and close the port.
    await asyncio.to_thread(until, lambda: not any(map(is_running, children)), "the end of all processes")
    await asyncio.to_thread(site.close)
    await asyncio.to_thread(site.start)
    return status
