"""The standalone server as the benchmarks run it: a process on loopback, with accounts of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.backends import Server

ROOT = Path(__file__).resolve().parents[2]
RUN = (sys.executable, "run.py")
STORES = {"memory": None, "redis": "redis8", "mongo": "mongo_rs"}
"""What each store needs to be started, a key of `tests.support.backends.KINDS`."""


@contextmanager
def backend(store: str) -> Iterator[str]:
    """Run what *store* needs in the meantime; yields its URL."""
    kind = STORES[store]
    if kind is None:
        yield store
        return
    with Server(kind) as server:
        yield server.backend.url


def add_account(name: str, password: str, data_dir: str) -> None:
    """Add an account to those in *data_dir*."""
    command = [*RUN, "accounts", "add", name, "--password-stdin", "--data-dir", data_dir]
    subprocess.run(command, cwd=ROOT, input=password, text=True, check=True, stdout=subprocess.DEVNULL)


def disable_account(name: str, data_dir: str) -> None:
    """Disable an account of those in *data_dir*."""
    command = [*RUN, "accounts", "disable", name, "--data-dir", data_dir]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def serving(*arguments: str, data_dir: str) -> Iterator[str]:
    """Serve with *arguments* in the meantime; yields where."""
    quiet = ("--log-level=warning", f"--audit-log={data_dir}/audit.log")
    command = [*RUN, "--port=0", f"--data-dir={data_dir}", *quiet, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        banner = process.stdout.readline()
        if "http://" not in banner:
            raise SystemExit(f"the server did not start: status {process.wait()}")
        try:
            yield "http://" + banner.split("http://")[1].split(",")[0].strip()
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait(30) != 0:
                raise SystemExit(f"the server ended with status {process.returncode}")
