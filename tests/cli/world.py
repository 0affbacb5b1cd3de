"""The servers behind the table of wrong set-ups."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import AF_UNIX, create_server, socket
from typing import Any, NamedTuple

import pymongo
import pytest

from stormcellar.cli.main import main
from tests.stores.redis.samples import redis_client
from tests.support.backends import KINDS, Server, find_binary, free_port
from tests.support.certificates import Authority
from tests.support.relay import Relay

PASSWORD = "hunter2"


class World(NamedTuple):
    """The servers of the table: their ports, and certificates."""

    redis: int
    locked: int
    cluster: int
    replica: int
    sentinel: int
    renamed: int
    mongo: int
    mongo_locked: int
    mongo_rs: int
    expired: int
    misnamed: int
    tls: int
    closed: int
    closed_socket: Path
    silent: int
    slow_redis: int
    slow_mongo: int
    protected: int
    loading: int
    says_max_clients: int
    certificate: Path
    other: Path


@contextmanager
def running_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run every server that a row of the table needs."""
    with ExitStack() as stack:

        def start(name: str, *extra: str) -> Server:
            return stack.enter_context(Server(name, extra=extra))

        def relay(*args: Any, **kwargs: Any) -> int:
            relay = Relay(*args, **kwargs)
            stack.callback(relay.close)
            return relay.port

        redis, locked = start("redis8"), start("redis8")
        with redis_client(locked.port) as admin:
            admin.config_set("requirepass", PASSWORD)
        replica = start("redis8", "--replicaof", f"127.0.0.1 {redis.port}")
        # It is bound, so that nobody else listens there.
        closed = stack.enter_context(socket())
        closed.bind(("127.0.0.1", 0))
        silent = create_server(("127.0.0.1", 0))
        stack.callback(silent.close)
        rs, mongo = start("mongo_rs"), start("mongo")
        client: pymongo.MongoClient[Any]
        with pymongo.MongoClient("127.0.0.1", mongo.port) as client:
            client.conflict.stormcellar_sessions.create_index("until", name="expires")
        mongo_locked = start("mongo", "--auth")
        with pymongo.MongoClient("127.0.0.1", mongo_locked.port) as client:
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        authority = Authority(tmp_path_factory.mktemp("ca"))
        other = Authority(tmp_path_factory.mktemp("other-ca"))

        def tls_port(target: int, *names: str, **how: Any) -> int:
            files = authority.issue(*names, **how)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files.certificate, files.key)
            return relay(target, tls=context)

        yield World(
            redis=redis.port,
            locked=locked.port,
            cluster=start("redis_cluster").port,
            replica=replica.port,
            sentinel=stack.enter_context(sentinel(tmp_path_factory.mktemp("sentinel"), redis.port)),
            renamed=start("redis8", "--rename-command", "EVAL", "").port,
            mongo=mongo.port,
            mongo_locked=mongo_locked.port,
            mongo_rs=rs.port,
            expired=tls_port(redis.port, days=(-9, -1)),
            misnamed=tls_port(redis.port, "redis.example.org"),
            tls=tls_port(redis.port),
            closed=closed.getsockname()[1],
            closed_socket=closed_socket(tmp_path_factory.mktemp("socket") / "s"),
            silent=silent.getsockname()[1],
            # Longer than the time-out of the test.
            slow_redis=relay(redis.port, delay_s=1.5),
            slow_mongo=relay(mongo.port, delay_s=1.5),
            protected=relay(says=b"-DENIED Redis is running in protected mode because\r\n"),
            loading=relay(says=b"-LOADING Redis is loading the dataset in memory\r\n" * 9),
            says_max_clients=relay(says=b"-ERR max number of clients reached\r\n"),
            certificate=authority.files.authority,
            other=other.files.authority,
        )


def closed_socket(path: Path) -> Path:
    """Leave the file of a Unix socket at *path*, as a server does that was killed."""
    with socket(AF_UNIX) as left:
        left.bind(str(path))
    return path


@contextmanager
def sentinel(directory: Path, port: int) -> Iterator[int]:
    """Run a Sentinel that watches the server on *port*, and yield its own port."""
    own = free_port()
    (directory / "conf").write_text(f"port {own}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port} 1\n")
    argv = [find_binary(KINDS["redis8"]), str(directory / "conf"), "--sentinel"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            while not KINDS["redis8"].is_ready(own):
                assert process.poll() is None
                time.sleep(0.05)
            yield own
        finally:
            process.terminate()


def told_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the status and everything that a command printed."""
    status = main(arguments)
    output = capsys.readouterr()
    return status, output.out + output.err
