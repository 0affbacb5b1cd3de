"""The load generator: wrk if it is installed, else a Python program; both are separate processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT

GENERATORS = ("wrk", "python")
_SCRIPT = Path(__file__).with_name("wrk.lua")
_EXTRA_S = 60


@dataclass(frozen=True, slots=True)
class Sample:
    """The measurements of one period of load."""

    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    failures: int
    """Responses other than 200, and connections that broke."""
    server_s: float = 0.0
    """CPU time that the server used."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time of the server per request, in microseconds."""
        return 1e6 * self.server_s / self.requests

    @property
    def busy(self) -> float:
        """Share of a core that the server used; below 1, something else limited the rate."""
        return self.server_s / self.seconds

    @property
    def is_valid(self) -> bool:
        """Whether there were requests and none of them failed."""
        return self.failures == 0 and self.requests > 0


FAILED = Sample(0, 1.0, 0.0, 0.0, 0.0, failures=1)
"""The sample of a period that could not be measured."""


def choose(wanted: str | None = None) -> str:
    """Return *wanted*; without it wrk if it is installed, else python.

    Raises:
        SystemExit: *wanted* is wrk, which is not installed.
    """
    has_wrk = shutil.which("wrk") is not None
    if wanted == "wrk" and not has_wrk:
        raise SystemExit("wrk is not on the PATH: install it, or use --generator python")
    return wanted or ("wrk" if has_wrk else "python")


def describe(generator: str) -> str:
    """Return the description of *generator* for reports."""
    if generator == "wrk":
        return "wrk -t1"
    return "the suite's Python generator (wrk is not installed or not chosen)"


def command(
    generator: str, port: int, path: str, cookies: Path, *, connections: int, seconds: float, rotates: bool
) -> list[str]:
    """Return the command, which is described in wrk.lua and python_generator.py. wrk takes whole seconds."""
    if generator == "wrk":
        return [
            *(
                "wrk",
                "-t1",
                f"-c{connections}",
                f"-d{max(1, round(seconds))}s",
                "--timeout",
                "10s",
                "-s",
                str(_SCRIPT),
            ),
            *(f"http://127.0.0.1:{port}{path}", "--", str(cookies), "rotates" if rotates else "fixed"),
        ]
    return [
        *(sys.executable, "-m", "benchmarks.harness.python_generator", str(port), path, str(cookies)),
        *(f"--connections={connections}", f"--seconds={seconds}", *(["--rotates"] if rotates else [])),
    ]


@contextmanager
def cookie_file(cookies: list[str]) -> Iterator[Path]:
    """Yield a file with *cookies*; afterwards read *cookies* back from it, as the generator left it."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "cookies")
        file.write_text("".join(f"{cookie}\n" for cookie in cookies))
        yield file
        cookies[:] = file.read_text().splitlines()


def send(
    generator: str,
    port: int,
    path: str,
    cookies: list[str],
    *,
    connections: int,
    seconds: float,
    rotates: bool = False,
) -> Sample:
    """Send GET requests for *path* for *seconds*, each with one of *cookies*.

    Args:
        rotates: Each response sets a new cookie; *cookies* is updated to those that are valid at the end.
    """
    options: dict[str, Any] = {"connections": connections, "seconds": seconds, "rotates": rotates}
    with cookie_file(cookies) as file:
        return parse(_run(command(generator, port, path, file, **options), timeout_s=seconds + _EXTRA_S))


def parse(output: str) -> Sample:
    """Return the sample in the RESULT line of a generator's *output*.

    Raises:
        RuntimeError: There is no such line.
    """
    for line in output.splitlines():
        word, _, sample = line.partition(" ")
        if word == "RESULT":
            return Sample(**json.loads(sample))
    raise RuntimeError(f"the load generator printed no RESULT line: {output[-500:]!r}")


def _run(arguments: Sequence[str], *, timeout_s: float) -> str:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} ended with status {done.returncode}: {done.stderr[-500:]}")
    return done.stdout
