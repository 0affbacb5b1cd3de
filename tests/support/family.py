"""A process group with a given behaviour: `python -m tests.support.family BEHAVIOUR COUNT [JSON]`.

Every child prints `started <pid>`; the parent exits with the status that `run_process_group` returned.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

from stormcellar.runtime.process_group import (
    ProcessLimits,
    blocked_signals,
    run_in_child,
    run_process_group,
    unblock_signals,
)

_PR_SET_CHILD_SUBREAPER = 36


def print_line(*words: object) -> None:
    """Write a line with one system call, without buffers that a fork would copy."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def waits(stop: int) -> int:
    """Wait for the stop signal, then exit."""
    os.read(stop, 1)
    print_line("stopped", os.getpid())
    return 0


def drains(stop: int) -> int:
    """After the stop signal, exit only when the file `go` exists; print SIGTERM but ignore it."""
    signal.signal(signal.SIGTERM, lambda *_: print_line("signalled", os.getpid()))
    unblock_signals()
    print_line("ready", os.getpid())
    os.read(stop, 1)
    print_line("draining", os.getpid())
    while not Path("go").exists():
        time.sleep(0.01)
    print_line("drained", os.getpid())
    return 0


def reloads(stop: int) -> int:
    """Print each SIGHUP, including those received before this child was ready."""
    print_line("forked", os.getpid())
    while Path("wait").exists():
        time.sleep(0.01)
    signal.signal(signal.SIGHUP, lambda *_: print_line("reloaded", os.getpid()))
    unblock_signals()
    print_line("ready", os.getpid())
    return waits(stop)


def breaks(stop: int) -> int:
    """Stop as requested, but exit with status 4."""
    waits(stop)
    return 4


def stuck(stop: int) -> int:
    """Ignore the stop signal."""
    while True:
        time.sleep(60)


def fails(stop: int) -> int:
    """Exit immediately with status 3."""
    print_line("at", time.monotonic())
    return 3


def raises(stop: int) -> int:
    """Exit immediately by an exception."""
    raise RuntimeError("a child that breaks")


def ends(stop: int) -> int:
    """Exit immediately with status 0."""
    return 0


def shoots(stop: int) -> int:
    """In the first child, stop the parent before this child, or the next one, is ready."""
    try:
        Path("shot").touch(exist_ok=False)
        os.kill(os.getppid(), signal.SIGTERM)
    except FileExistsError:
        pass
    return waits(stop)


def orphans(stop: int) -> int:
    """Start a grandchild that is orphaned and exits as a child of its new parent."""
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(9)
        os._exit(0)
    os.wait()
    return waits(stop)


BEHAVIOURS = {
    each.__name__: each
    for each in (waits, drains, reloads, breaks, stuck, fails, raises, ends, shoots, orphans)
}


def main() -> int:
    """Run the parent."""
    logging.basicConfig(format="%(message)s")
    name, count, *limits = sys.argv[1:]
    if name == "orphans":
        # Adopt orphans, as process 1 of a container does.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    work = BEHAVIOURS[name]

    def child(stop: int) -> int:
        print_line("started", os.getpid())
        return work(stop)

    sys.stdout.write("once")  # in the buffer while the children are forked
    if count == "apart":
        status = run_in_child(lambda: child(0))
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening, blocked_signals():
            given = ProcessLimits(**json.loads("".join(limits) or "{}"))
            status = run_process_group(
                int(count), child, sockets=[listening], reload=lambda: print_line("noticed"), limits=given
            )
    print_line("returned", status)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
