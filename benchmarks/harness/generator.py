"""Where load comes from: `wrk` if it is installed, else a generator of our own; either is a process apart."""

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
_SPARE_S = 60


@dataclass(frozen=True, slots=True)
class Sample:
    """What came of one stretch of load."""

    requests: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    failures: int
    """Answers other than 200, and connections that broke."""
    server_s: float = 0.0
    """What the server spent meanwhile, in seconds of CPU time."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's CPU time a request."""
        return 1e6 * self.server_s / self.requests

    @property
    def busy(self) -> float:
        """How much of a core the server had: below 1 it is not what limits."""
        return self.server_s / self.seconds

    @property
    def is_valid(self) -> bool:
        """Whether it may be counted."""
        return self.failures == 0 and self.requests > 0


FAILED = Sample(0, 1.0, 0.0, 0.0, 0.0, failures=1)
"""Stands for a stretch of which nothing is known."""


def pick(wanted: str | None = None) -> str:
    """Return *wanted*, or the best generator that there is.

    Raises:
        SystemExit: wrk is wanted, and there is none.
    """
    has_wrk = shutil.which("wrk") is not None
    if wanted == "wrk" and not has_wrk:
        raise SystemExit("there is no wrk on the PATH: install it, or use --generator python")
    return wanted or ("wrk" if has_wrk else "python")


def described(generator: str) -> str:
    """Return a line about *generator* for the output."""
    if generator == "wrk":
        return "wrk -t1"
    return "the Python generator of the suite (with wrk installed: that)"


def command(
    generator: str, port: int, path: str, cookies: Path, *, connections: int, seconds: float, rotates: bool
) -> list[str]:
    """Return what to start: `wrk.lua` and `python_generator.py` say what it does. wrk takes whole seconds."""
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
            *(f"http://127.0.0.1:{port}{path}", "--", str(cookies), "rotates" if rotates else "stays"),
        ]
    return [
        *(sys.executable, "-m", "benchmarks.harness.python_generator", str(port), path, str(cookies)),
        *(f"--connections={connections}", f"--seconds={seconds}", *(["--rotates"] if rotates else [])),
    ]


@contextmanager
def cookie_file(cookies: list[str]) -> Iterator[Path]:
    """Keep *cookies* in a file in the meantime; afterwards they are what a generator left there."""
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
    """Send GETs of *path* for so long, each with one of *cookies*.

    Args:
        rotates: Each response brings another cookie; *cookies* are then those that are good afterwards.
    """
    options: dict[str, Any] = {"connections": connections, "seconds": seconds, "rotates": rotates}
    with cookie_file(cookies) as file:
        return parse(_run(command(generator, port, path, file, **options), within_s=seconds + _SPARE_S))


def parse(output: str) -> Sample:
    """Return the sample that a generator's *output* tells of.

    Raises:
        RuntimeError: It does not.
    """
    for line in output.splitlines():
        mark, _, said = line.partition(" ")
        if mark == "RESULT":
            return Sample(**json.loads(said))
    raise RuntimeError(f"the load generator said nothing of use: {output[-500:]!r}")


def _run(arguments: Sequence[str], *, within_s: float) -> str:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=within_s, check=False)
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} ended with status {done.returncode}: {done.stderr[-500:]}")
    return done.stdout
