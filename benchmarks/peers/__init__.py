"""The peers that the benchmarks time beside Stormcellar. What each is, its settings and why: README.md."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.environments import NodeEnvironment, PythonEnvironment

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[1] / "var" / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """A session library with its framework, and a server of ours that uses it.

    Args:
        name: What it is called, and its folder under var/peers/.
        stores: Which it can be timed with, of "memory", "redis" and "mongo".
        server, pins: What to run and the exact versions it runs on, files beside this one.
        environment: What it runs in.
        reads_write: The library saves the session of each request that reads it, and cannot be told not to.
    """

    name: str
    stores: tuple[str, ...]
    server: str
    pins: str
    environment: NodeEnvironment | PythonEnvironment
    reads_write: bool = False

    def missing(self) -> str | None:
        """Return in one line why it cannot run on this machine, or None if it can."""
        return self.environment.missing()

    def prepare(self) -> None:
        """Make its environment if there is none for these pins; RuntimeError, one line, if that fails."""
        if reason := self.missing():
            raise RuntimeError(f"{self.name}: {reason}")
        pins = HERE / self.pins
        stamp = self._folder / "prepared"
        content = f"{sys.version}\n{pins.read_text()}"
        if stamp.is_file() and stamp.read_text() == content:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        try:
            self.environment.build(self._folder, pins)
        except RuntimeError as exc:
            raise RuntimeError(f"{self.name}: {exc}") from None
        stamp.write_text(content)

    def command(self, store: str, url: str, port: int) -> list[str]:
        """Return what serves it on 127.0.0.1:*port* with *store* at *url*, "" for memory."""
        if store not in self.stores:
            raise ValueError(f"{self.name} has no {store} store")
        return [*self.environment.interpreter(self._folder), str(HERE / self.server), store, url, str(port)]

    @property
    def _folder(self) -> Path:
        return ENVIRONMENTS / self.name


PEERS = (
    Peer(
        name="express",
        stores=("memory", "redis", "mongo"),
        server="express/server.js",
        pins="express/package.json",
        environment=NodeEnvironment(at_least=(20, 19)),
    ),
    Peer(
        name="starsessions",
        stores=("memory", "redis"),
        server="starsessions_app.py",
        pins="requirements/starsessions.txt",
        environment=PythonEnvironment(),
        reads_write=True,
    ),
    Peer(
        name="aiohttp-session",
        stores=("redis",),
        server="aiohttp_session_app.py",
        pins="requirements/aiohttp-session.txt",
        environment=PythonEnvironment(),
    ),
    Peer(
        name="django",
        stores=("memory", "redis"),
        server="django_app.py",
        pins="requirements/django.txt",
        environment=PythonEnvironment(),
    ),
)
