"""The suite's own means do what other tests rely on: signals, backends, the proxy."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.support.backends import KINDS, Backend, BackendMissing, Server, _redis_reply
from tests.support.proxy import DroppingProxy
from tests.support.running import ROOT


def resp(*words: str) -> bytes:
    """Return one Redis command as a client sends it."""
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words)])


def test_interrupt_ends_a_program() -> None:
    """A program that a test starts ends at SIGINT unless it decides otherwise."""
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(20)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as started:
        assert started.stdout is not None
        started.stdout.readline()
        started.send_signal(signal.SIGINT)

        assert started.wait(10) == -signal.SIGINT


def test_interrupt_ends_a_program_in_a_background_run() -> None:
    """That holds too where the suite was started with SIGINT ignored, as a script's background jobs are."""
    name = f"{__file__}::{test_interrupt_ends_a_program.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
    ended = subprocess.run(
        ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "1 passed" in ended.stdout, ended.stdout
    assert ended.returncode == 0


def test_databases_can_be_left_out() -> None:
    """With --no-databases no test is selected whose fixtures or parameters start a server."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", __file__]
    listed = subprocess.run([*command, "--no-databases"], capture_output=True, text=True, check=True).stdout

    assert test_missing_binary_says_what_to_set.__name__ in listed
    for needs_server in (
        test_private_server_restarts_on_its_port,
        test_every_backend_is_ready_when_handed_out,
        test_dropped_reply_was_executed_once_and_connection_closed,
    ):
        assert needs_server.__name__ not in listed


HANGING = """
import asyncio, threading, time
import pytest

@pytest.fixture
def hangs_at_its_end(io_loop):
    yield
    threading.Event().wait()

@pytest.mark.gen_test(timeout=60)
async def test_hangs(hangs_at_its_end):
    async def catches():
        time.sleep(60)
    task = asyncio.ensure_future(catches())
    await asyncio.Event().wait()
"""


def test_nothing_hangs_without_a_limit(tmp_path: Path) -> None:
    """A test fails at its limit though a task catches the first failure, and so does a fixture after it."""
    (tmp_path / "test_hanging.py").write_text(HANGING)
    options = ("--rootdir", str(tmp_path), "-p", "tests.conftest", "-p", "no:cacheprovider", "--timeout=1")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "setup.cfg", *options, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )

    assert "1 failed, 1 error" in ended.stdout, ended.stdout
    assert ended.stdout.count("Failed: Timeout (>1.0s)") >= 2


def test_missing_binary_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing binary before a start is attempted."""
    monkeypatch.setenv("TEST_REDIS_SERVER", "/nowhere/redis-server")

    with pytest.raises(BackendMissing, match="/nowhere/redis-server"):
        Server("redis8")


def test_binary_that_does_not_run_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A binary whose libraries are absent counts as missing."""
    monkeypatch.setenv("TEST_MONGOD", "/bin/false")

    with pytest.raises(BackendMissing, match="does not run on this machine"):
        Server("mongo")


def test_failed_start_shows_the_log(start_server: StartServer) -> None:
    """If a server rejects its arguments, the RuntimeError contains its log."""
    with pytest.raises(RuntimeError, match="no-such-option"):
        start_server("redis8", extra=["--no-such-option", "1"])


def test_private_server_restarts_on_its_port(start_server: StartServer) -> None:
    """After a kill nothing responds on the port; a restarted server uses the same port."""
    server = start_server("redis8")
    server.kill()

    silent = _redis_reply(server.port, "PING")
    server.start()

    assert (silent, _redis_reply(server.port, "PING")) == (b"", b"+PONG\r\n")


def test_paused_server_stays_connected_and_silent(start_server: StartServer) -> None:
    """A paused server accepts connections without a response, and responds again once resumed."""
    server = start_server("redis6")
    server.pause()

    silent = _redis_reply(server.port, "PING")
    server.resume()

    assert (silent, _redis_reply(server.port, "PING")) == (b"", b"+PONG\r\n")


@pytest.mark.parametrize("name", KINDS)
def test_every_backend_is_ready_when_handed_out(name: str, request: pytest.FixtureRequest) -> None:
    """A backend fixture yields a server that is ready."""
    backend: Backend = request.getfixturevalue(name)

    assert KINDS[backend.name].is_ready(backend.port)


@pytest.mark.parametrize("interrupted", [False, True])
def test_server_in_the_foreground_ends_with_a_reason(interrupted: bool, redis8: Backend) -> None:
    """If the server ends by itself, one line says so and the status is 1; Ctrl-C gives no line and 0."""
    command = [sys.executable, "-m", "tests.support.backends", "redis"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as own:
        assert own.stdout is not None
        port = int(re.findall(r":(\d+)/", own.stdout.readline())[0])
        if interrupted:
            own.send_signal(signal.SIGINT)
        else:
            _redis_reply(port, "SHUTDOWN NOSAVE")
        errors = own.communicate(timeout=30)[1]

    line = "redis8 ended unexpectedly, with exit status 0\n"
    assert (own.returncode, errors) == ((0, "") if interrupted else (1, line))


@pytest.mark.gen_test
async def test_dropped_reply_was_executed_once_and_connection_closed(redis8: Backend) -> None:
    """The command of a dropped reply was executed, and the client's connection is closed."""
    async with DroppingProxy(redis8.port, protocol="redis") as proxy:
        proxy.drop_replies(lambda request: b"INCR" in request)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(resp("DEL", "proxied") + resp("PING"))
        before = await reader.readexactly(len(b":0\r\n+PONG\r\n"))
        writer.write(resp("INCR", "proxied"))
        after = await reader.read()
        writer.close()

    assert before[-7:] == b"+PONG\r\n"
    assert after == b""
    assert proxy.count(b"incr") == 1
    assert _redis_reply(redis8.port, "GET proxied") == b"$1\r\n1\r\n"


@pytest.mark.gen_test
async def test_hanging_drop_leaves_the_connection_open(redis8: Backend) -> None:
    """With `hang` the connection stays open without a reply; other connections work."""
    async with DroppingProxy(redis8.port, protocol="redis") as proxy:
        proxy.drop_replies(lambda request: b"PING" in request, hang=True)
        first, to_first = await asyncio.open_connection("127.0.0.1", proxy.port)
        to_first.write(resp("PING"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first.read(1), 0.2)
        second, to_second = await asyncio.open_connection("127.0.0.1", proxy.port)
        to_second.write(resp("PING"))
        served = await second.readexactly(7)
        to_first.close()
        to_second.close()

    assert served == b"+PONG\r\n"
    assert len(proxy.requests) == 2
