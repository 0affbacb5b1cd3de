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
    """A peer that may be missing, and whose server is some Python."""

    name: str = "somebody"
    stores: tuple[str, ...] = ("memory",)
    program: str = ""
    why: str | None = None
    reads_write: bool = False

    def missing(self) -> str | None:
        """Return why it cannot run here."""
        return self.why

    def prepare(self) -> None:
        """Fail."""
        raise RuntimeError("no network")

    def command(self, store: str, url: str, port: int) -> list[str]:
        """Return what to start."""
        return [sys.executable, "-c", self.program]


@pytest.mark.parametrize("why", [None, "no node"])
def test_a_peer_that_cannot_run_is_named(why: str | None) -> None:
    """Whether it is missing or its environment cannot be made; the run goes on without it."""
    figures: Any = {"notes": {}}

    assert not bench._is_ready(Peer(why=why), ["memory"], figures)
    assert figures["notes"] == {"somebody": f"not measured: {why or 'no network'}"}


def test_a_peer_that_does_not_start_says_why() -> None:
    """The end of what it said goes into the report."""
    options, peer = argparse.Namespace(cores=()), Peer(program="raise SystemExit('no such module')")
    with ExitStack() as stack:
        why = bench._start(peer, "memory", "", None, options, stack)

    assert why == "somebody with memory did not start: no such module"


def test_a_server_that_ended_fails_the_stretch(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told, and nothing is taken for a figure; the sessions for logins are not used any more."""
    gone = ServerUnderTest("somebody", "memory", 1, 2**22 + 1, cookies=["id=1"], rotating=["id=2"])
    options = argparse.Namespace(generator="python", connections=1, seconds=0.1)

    assert not gone.sample("read", options).is_valid
    assert gone.rotating == []
    assert capsys.readouterr().err.startswith("somebody with memory: read: ")
