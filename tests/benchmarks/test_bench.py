"""The benchmark reports servers that cannot run or that end."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks import bench
from benchmarks.harness.server_under_test import ServerUnderTest


@dataclass(frozen=True)
class Peer:
    """A peer with a given reason to be missing and a given Python program as its server."""

    name: str = "somebody"
    stores: tuple[str, ...] = ("memory",)
    program: str = ""
    reason: str | None = None
    reads_write: bool = False

    def missing(self) -> str | None:
        """Return the reason why it cannot run."""
        return self.reason

    def prepare(self) -> None:
        """Fail."""
        raise RuntimeError("no network")

    def command(self, store: str, url: str, port: int) -> list[str]:
        """Return the command of the program."""
        return [sys.executable, "-c", self.program]


@pytest.mark.parametrize("reason", [None, "no node"])
def test_a_peer_that_cannot_run_is_noted(reason: str | None) -> None:
    """Because it is missing or its environment cannot be built; the run continues without it."""
    results: Any = {"notes": {}}

    assert not bench._is_ready(Peer(reason=reason), ["memory"], results)
    assert results["notes"] == {"somebody": f"not measured: {reason or 'no network'}"}


def test_a_peer_that_does_not_start_is_reported_with_its_output() -> None:
    """The end of its standard error is the reason."""
    options, peer = argparse.Namespace(cores=()), Peer(program="raise SystemExit('no such module')")
    with ExitStack() as stack:
        reason = bench._start(peer, "memory", "", None, options, stack)

    assert reason == "somebody with memory did not start: no such module"


def test_a_server_that_ended_makes_the_sample_invalid(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is printed, and the sessions for logins are no longer used."""
    ended = ServerUnderTest("somebody", "memory", 1, 2**22 + 1, cookies=["id=1"], rotating=["id=2"])
    options = argparse.Namespace(generator="python", connections=1, seconds=0.1)

    assert not ended.sample("read", options).is_valid
    assert ended.rotating == []
    assert capsys.readouterr().err.startswith("somebody with memory: read: ")
