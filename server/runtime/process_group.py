"""Several server processes on one set of listening sockets, and the signals that end them.

The parent handles no signal: it keeps them blocked and waits for the next one, so that none can come at a
bad moment, be lost, or interrupt a call.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from socket import socket
from typing import Any, NoReturn

log = logging.getLogger("stormcellar.processes")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
RELOAD_SIGNAL = signal.SIGHUP
_HANDLED = (*STOP_SIGNALS, RELOAD_SIGNAL)
_PARENT_SIGNALS = (*_HANDLED, signal.SIGCHLD, signal.SIGALRM)


@dataclass(frozen=True)
class ProcessLimits:
    """How long the parent bears with its children. Seconds."""

    first_pause_s: float = 0.02
    """Before the first replacement; each further one within `window_s` waits twice as long."""
    longest_pause_s: float = 5.0
    max_restarts: int = 10
    """More children than this ending within `window_s` stop the server: a supervisor must see it."""
    window_s: float = 60.0
    drain_s: float = 45.0
    """Then a child that was told to stop is killed. Longer than its own limits for a drain take together."""


class SharedSocket(socket):
    """A listening socket that others listen on too: it hands out a few connections, then they have a turn.

    Tornado takes up to 128 in one go (netutil.py, add_accept_handler): the first process gets a whole burst,
    and keeps it. A socket of each process's own (SO_REUSEPORT) is as fair, but there who waits for a process
    that is stuck, or has ended, waits in vain though another is free. Figures: `benchmarks/processes.py`.
    """

    AT_ONCE = 4
    _taken = 0

    def accept(self) -> tuple[socket, Any]:
        """Return a connection; once after so many say that there is none. The loop asks again in a moment."""
        self._taken = (self._taken + 1) % (self.AT_ONCE + 1)
        if self._taken == 0:
            raise BlockingIOError
        return super().accept()


def shared_socket(listening: socket) -> SharedSocket:
    """Return *listening*, of which nothing is left, as one that several processes share."""
    made = SharedSocket(fileno=listening.detach())
    made.setblocking(False)
    return made


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Keep SIGTERM, SIGINT and SIGHUP waiting until somebody can handle them: see `unblock_signals`."""
    with _blocked(_HANDLED):
        yield


def unblock_signals(signals: Sequence[signal.Signals] = _HANDLED) -> None:
    """Let the signals in, those too that have been waiting."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def run_in_child(work: Callable[[], int]) -> int:
    """Run *work* in a child process, so that nothing it made is inherited, and return its exit status."""
    pid = os.fork()
    if pid == 0:
        _exit_with(work)
    return _exit_status(os.waitpid(pid, 0)[1])


def run_process_group(
    count: int,
    work: Callable[[int], int],
    *,
    sockets: Sequence[socket] = (),
    reload: Callable[[], object] = lambda: None,
    limits: ProcessLimits = ProcessLimits(),
) -> int:
    """Run *work* in *count* child processes until they end; call it before any loop, thread or client exists.

    A child that ends is replaced. SIGTERM or SIGINT stops them all, in order; a second one kills them. SIGHUP
    is passed on to each.

    Args:
        work: Is given a descriptor that reads end of file once it is to stop, or this process is gone, and
            returns the exit status. It begins with the signals held, and with SIGINT ignored: the
            terminal's Ctrl-C reaches every process at once, and it is the parent that passes it on.
        sockets: What the children listen on; closed here at the stop, so that nobody waits in their queues.
        reload: Called here at SIGHUP, before the children are told, for what later ones will begin with.

    Returns:
        0 if every child ended well, else the status of one that did not.
    """
    return _ProcessGroup(count, work, sockets, reload, limits).run()


class _ProcessGroup:
    def __init__(
        self,
        count: int,
        work: Callable[[int], int],
        sockets: Sequence[socket],
        reload: Callable[[], object],
        limits: ProcessLimits,
    ) -> None:
        self._count = count
        self._work = work
        self._sockets = sockets
        self._reload = reload
        self._limits = limits
        self._children: set[int] = set()
        self._endings: list[float] = []
        self._is_stopping = False
        self._kill_at = 0.0
        self._status = 0
        # Never written to: end of file, when its last writer is gone, is the message.
        self._watched, self._held = os.pipe()

    def run(self) -> int:
        with _blocked(_PARENT_SIGNALS):
            # Outside Linux a signal that is ignored by default is dropped, blocked or not.
            before = signal.signal(signal.SIGCHLD, lambda *_: None)
            self._fill_up()
            while self._children or not self._is_stopping:
                self._on(signal.sigwait(_PARENT_SIGNALS))
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGCHLD, before)
        os.close(self._watched)
        return self._status

    def _on(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGALRM and not self._is_stopping:
            self._fill_up()
        elif number == RELOAD_SIGNAL:
            self._reload_all()
        elif number in STOP_SIGNALS and not self._is_stopping:
            self._stop()
        # An alarm here can be that of a replacement, set before the stop.
        elif number in STOP_SIGNALS or time.monotonic() >= self._kill_at:
            self._kill()

    def _reap(self) -> None:
        """Take note of every child that ended: the signals of several may have come as one."""
        while self._children:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            # As process 1 of a container we are given orphans too, which nobody misses.
            if pid in self._children:
                self._children.discard(pid)
                self._ended(pid, _exit_status(wait_status))

    def _ended(self, pid: int, status: int) -> None:
        if self._is_stopping:
            self._status = self._status or status
            return
        log.warning("process %d ended with status %d; starting another", pid, status)
        self._replace_later(status or 1)

    def _replace_later(self, status: int) -> None:
        now, limits = time.monotonic(), self._limits
        self._endings = [t for t in self._endings if now - t < limits.window_s] + [now]
        if len(self._endings) > limits.max_restarts:
            log.error("%d processes ended within %.0f s; stopping", len(self._endings), limits.window_s)
            self._status = status
            self._stop()
        else:
            pause_s = limits.first_pause_s * 2 ** (len(self._endings) - 1)
            signal.setitimer(signal.ITIMER_REAL, min(pause_s, limits.longest_pause_s))

    def _fill_up(self) -> None:
        while len(self._children) < self._count and not self._is_stopping:
            try:
                pid = os.fork()
            except OSError as exc:
                log.error("cannot start a process: %s", exc.strerror)
                self._replace_later(1)
                return
            if pid == 0:
                _exit_with(self._as_child)
            self._children.add(pid)

    def _as_child(self) -> int:
        os.close(self._held)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGALRM))
        return self._work(self._watched)

    def _reload_all(self) -> None:
        if self._is_stopping:
            return
        try:
            self._reload()
        except Exception:  # whatever is wrong with a file, a service must not end over it
            log.exception("could not reload; what is in use stays")
        for pid in self._children:
            os.kill(pid, RELOAD_SIGNAL)

    def _stop(self) -> None:
        self._is_stopping = True
        for each in self._sockets:
            each.close()
        os.close(self._held)
        self._kill_at = time.monotonic() + self._limits.drain_s
        signal.setitimer(signal.ITIMER_REAL, self._limits.drain_s)

    def _kill(self) -> None:
        """End at once what has not ended by itself, on a second signal or after a drain without end."""
        log.warning("killing %d processes", len(self._children))
        self._status = 1
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def _blocked(signals: Sequence[signal.Signals]) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_status(wait_status: int) -> int:
    """Return the exit status as shells tell it: 128 and the number for the death by a signal."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _exit_with(work: Callable[[], int]) -> NoReturn:
    status = 1
    try:
        status = work()
    except Exception:
        log.exception("process %d failed", os.getpid())
    finally:
        # Not sys.exit(): the parent's exit handlers and buffers are not the child's to run.
        os._exit(status)
