"""Several server processes on one set of listening sockets, and the signals that stop and reload them.

The parent installs no signal handlers: it blocks all signals and waits for them one by one with sigwait(), so
that none is lost or interrupts a call.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
    """Limits for restarting and stopping child processes. Seconds."""

    first_pause_s: float = 0.02
    """The pause before the first restart; each further one within `window_s` takes twice as long."""
    longest_pause_s: float = 5.0
    max_restarts: int = 10
    """If more children than this end within `window_s`, the server stops, for a supervisor to notice."""
    window_s: float = 60.0
    drain_s: float = 45.0
    """A child that has not stopped by then is killed. Above the sum of the limits of its own drain."""


class SharedSocket(socket):
    """A listening socket that several processes share. It accepts few connections in a row.

    Tornado accepts up to 128 in a row (netutil.py, add_accept_handler): one process would get a whole burst.
    One socket for each process (SO_REUSEPORT) is as fair, but connections queued for a process that hangs or
    has ended get no answer, although another process is free. Figures: `benchmarks/processes.py`.
    """

    AT_ONCE = 4
    _taken = 0

    def accept(self) -> tuple[socket, Any]:
        """Return a connection. After every `AT_ONCE`, raise BlockingIOError once; the loop calls again."""
        self._taken = (self._taken + 1) % (self.AT_ONCE + 1)
        if self._taken == 0:
            raise BlockingIOError
        return super().accept()


def shared_socket(listening: socket) -> SharedSocket:
    """Return the socket *listening*, which is detached, as a `SharedSocket`."""
    shared = SharedSocket(fileno=listening.detach())
    shared.setblocking(False)
    return shared


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block SIGTERM, SIGINT and SIGHUP: they stay pending until `unblock_signals` or the end."""
    with _blocked(_HANDLED):
        yield


def unblock_signals(signals: Sequence[signal.Signals] = _HANDLED) -> None:
    """Unblock *signals*; pending ones are delivered now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def reap_orphans() -> None:
    """Wait for every child that has ended. For process 1 of a container, which gets the orphans."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def run_in_child(work: Callable[[], int]) -> int:
    """Run *work* in a child process, which takes all it created with it, and return its exit status."""
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
    """Run *work* in *count* child processes. Call it before an event loop, thread or client exists.

    A child that ends is restarted. SIGTERM or SIGINT stops all children gracefully; a second one kills them.
    SIGHUP is forwarded to each child.

    Args:
        work: Gets a file descriptor, which reaches end of file when the child must stop or the parent has
            ended, and returns the exit status. It starts with signals blocked, and with SIGINT ignored:
            Ctrl-C reaches every process of a terminal, and the parent stops the children.
        sockets: The sockets of the children. Closed in the parent at the stop, so that no connection is left
            in their queues.
        reload: Called in the parent at SIGHUP, before the children get it, so that later children start with
            the new state.

    Returns:
        0 if every child stopped with 0, else the status of one that did not.
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
        # Nothing is written: the reading end reaches end of file when the parent closes it or ends.
        self._stop_reader, self._stop_writer = os.pipe()

    def run(self) -> int:
        with _blocked(_PARENT_SIGNALS):
            # Outside Linux a signal whose default is to be ignored is dropped even if blocked.
            before = signal.signal(signal.SIGCHLD, lambda *_: None)
            self._start_missing()
            while self._children or not self._is_stopping:
                self._handle(signal.sigwait(_PARENT_SIGNALS))
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGCHLD, before)
        os.close(self._stop_reader)
        return self._status

    def _handle(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGALRM and not self._is_stopping:
            self._start_missing()
        elif number == RELOAD_SIGNAL:
            self._reload_all()
        elif number in STOP_SIGNALS and not self._is_stopping:
            self._stop()
        # This alarm may be one for a restart, set before the stop.
        elif number in STOP_SIGNALS or time.monotonic() >= self._kill_at:
            self._kill()

    def _reap(self) -> None:
        """Handle every child that has ended: several can cause a single signal."""
        while self._children:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            # As process 1 of a container this process also gets orphans, which need nothing else.
            if pid in self._children:
                self._children.discard(pid)
                self._on_end(pid, _exit_status(wait_status))

    def _on_end(self, pid: int, status: int) -> None:
        if self._is_stopping:
            self._status = self._status or status
            return
        log.warning("process %d ended with status %d; starting another", pid, status)
        self._restart_later(status or 1)

    def _restart_later(self, status: int) -> None:
        now, limits = time.monotonic(), self._limits
        self._endings = [t for t in self._endings if now - t < limits.window_s] + [now]
        if len(self._endings) > limits.max_restarts:
            log.error("%d processes ended within %.0f s; stopping", len(self._endings), limits.window_s)
            self._status = status
            self._stop()
        else:
            pause_s = limits.first_pause_s * 2 ** (len(self._endings) - 1)
            signal.setitimer(signal.ITIMER_REAL, min(pause_s, limits.longest_pause_s))

    def _start_missing(self) -> None:
        while len(self._children) < self._count and not self._is_stopping:
            try:
                pid = os.fork()
            except OSError as exc:
                log.error("cannot start a process: %s", exc.strerror)
                self._restart_later(1)
                return
            if pid == 0:
                _exit_with(self._run_child)
            self._children.add(pid)

    def _run_child(self) -> int:
        os.close(self._stop_writer)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGALRM))
        return self._work(self._stop_reader)

    def _reload_all(self) -> None:
        if self._is_stopping:
            return
        try:
            self._reload()
        except Exception:  # no error in a file may end the service
            log.exception("could not reload; nothing was changed")
        for pid in self._children:
            os.kill(pid, RELOAD_SIGNAL)

    def _stop(self) -> None:
        self._is_stopping = True
        for each in self._sockets:
            each.close()
        os.close(self._stop_writer)
        self._kill_at = time.monotonic() + self._limits.drain_s
        signal.setitimer(signal.ITIMER_REAL, self._limits.drain_s)

    def _kill(self) -> None:
        """Kill the children that have not stopped: after a second signal, or after `drain_s`."""
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
    """Return the exit status as shells show it: after a signal, 128 plus its number."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _exit_with(work: Callable[[], int]) -> NoReturn:
    status = 1
    try:
        status = work()
    except Exception:
        log.exception("process %d failed", os.getpid())
    finally:
        # Not sys.exit(), which would run the parent's exit handlers and flush its buffers a second time.
        os._exit(status)
