"""Several server processes on one set of listening sockets."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("stormcellar.processes")

MAX_RESTARTS = 20


def run_apart(work: Callable[[], int]) -> int:
    """Run *work* in a child process, so that nothing it made is inherited, and return its exit status."""
    pid = os.fork()
    if pid == 0:
        _exit_with(work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_forked(count: int, work: Callable[[int], int]) -> int:
    """Run *work* in *count* child processes until they end; call it before any loop, thread or client exists.

    SIGTERM and SIGINT are passed on; a child that fails is replaced, twenty times in all.

    Args:
        work: Is given a descriptor that reads end of file once this process is gone, and returns the exit
            status: 2 if the set-up is wrong, which replacing the child would not mend.

    Returns:
        0 if every child ended well, else the status of one that did not.
    """
    return _Family(count, work).run()


class _Family:
    def __init__(self, count: int, work: Callable[[int], int]) -> None:
        self._count = count
        self._work = work
        self._children: set[int] = set()
        self._is_stopping = False
        self._restarts = 0
        self._watched, self._held = os.pipe()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        for _ in range(self._count):
            self._start()
        status = 0
        while self._children:
            pid, wait_status = os.wait()
            self._children.discard(pid)
            status = self._after(pid, os.waitstatus_to_exitcode(wait_status)) or status
        return status

    def _after(self, pid: int, status: int) -> int:
        if self._is_stopping:
            return max(status, 0)
        if status == 2 or self._restarts == MAX_RESTARTS:
            log.error("process %d ended with status %d; stopping all", pid, status)
            self._stop()
            return status if status > 0 else 1
        log.error("process %d ended with status %d; starting another", pid, status)
        self._restarts += 1
        self._start()
        return 0

    def _start(self) -> None:
        pid = os.fork()
        if pid == 0:
            # A group of its own: the terminal's Ctrl-C reaches the parent only, which passes it on once.
            os.setpgrp()
            os.close(self._held)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            _exit_with(lambda: self._work(self._watched))
        self._children.add(pid)
        if self._is_stopping:
            os.kill(pid, signal.SIGTERM)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._is_stopping = True
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)


def _exit_with(work: Callable[[], int]) -> None:
    status = 1
    try:
        status = work()
    except Exception:
        log.exception("process %d failed", os.getpid())
    finally:
        # Not sys.exit(): the parent's exit handlers and buffers are not the child's to run.
        os._exit(status)
