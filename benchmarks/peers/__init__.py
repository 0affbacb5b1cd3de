"""The peers that the benchmarks compare with. README.md describes each peer and its settings."""

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
    """A session library with its framework, and a server that uses it.

    Args:
        name: Its name, and its folder under var/peers/.
        stores: The stores that it supports, of "memory", "redis" and "mongo".
        server, pins: The program and its exact requirements; files in this folder.
        environment: The environment that the server runs in.
        reads_write: The library saves the session after each read and has no option to prevent it.
    """

    name: str
    stores: tuple[str, ...]
    server: str
    pins: str
    environment: NodeEnvironment | PythonEnvironment
    reads_write: bool = False

    def missing(self) -> str | None:
        """Return the reason, in one line, why it cannot run on this machine, or None."""
        return self.environment.missing()

    def prepare(self) -> None:
        """Build its environment unless it exists for these pins; raise RuntimeError, one line, on failure."""
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
        """Return the command of its server on 127.0.0.1:*port* with *store* at *url*, "" for memory."""
        if store not in self.stores:
            raise ValueError(f"{self.name} does not support the {store} store")
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
