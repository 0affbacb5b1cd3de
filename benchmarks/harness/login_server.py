"""The login server as a process on loopback, with its own accounts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import ROOT

RUN = (sys.executable, "run.py")


def add_account(name: str, password: str, data_dir: str) -> None:
    """Add an account to the accounts in *data_dir*."""
    command = [*RUN, "accounts", "add", name, "--password-stdin", "--data-dir", data_dir]
    subprocess.run(command, cwd=ROOT, input=password, text=True, check=True, stdout=subprocess.DEVNULL)


def disable_account(name: str, data_dir: str) -> None:
    """Disable an account in *data_dir*."""
    command = [*RUN, "accounts", "disable", name, "--data-dir", data_dir]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def run_login_server(*arguments: str, data_dir: str) -> Iterator[str]:
    """Run the login server with *arguments*; yield its base URL."""
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


@contextmanager
def run_server(command: list[str], directory: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run *command* with its bytecode in *directory*; yield the process and the port that it prints."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{directory}/bytecode"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not (port := re.search(r"http://[^:]+:(\d+)", process.stdout.readline())):
                raise SystemExit("the server printed no address")
            yield process, int(port[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def cpu_time_s(pid: int) -> float:
    """Return the CPU time that the process *pid* has used."""
    # proc(5): utime and stime are fields 14 and 15; the name, in parentheses, is field 2.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
