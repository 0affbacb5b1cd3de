"""The server as a whole, run as operators run it: it starts or says why not, and ends without losing work."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import argon2
import pytest
from tornado.httpclient import AsyncHTTPClient

from stormcellar.accounts.directory import Account, AccountFile
from stormcellar.accounts.passwords import hash_password
from stormcellar.cli.main import main
from stormcellar.private_files import create_private
from stormcellar.runtime.load_settings import load_settings
from stormcellar.runtime.process_group import SharedSocket
from stormcellar.runtime.startup import Startup, listen, prepare
from tests.conftest import StartServer
from tests.support.backends import Backend, Server
from tests.support.browser import Browser
from tests.support.running import ROOT, WAIT_S, WITHOUT_UVLOOP, Running, get, is_running

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
BOTH_LOOPS = pytest.mark.parametrize(
    "program", [(str(ROOT / "run.py"),), ("-c", WITHOUT_UVLOOP)], ids=["uvloop if there", "asyncio"]
)
STOP_SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Put back what a server in this process did to the handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def browser(base: str) -> Browser:
    """Return a browser for the server at *base*."""
    return Browser(AsyncHTTPClient(), base)


async def sign_in(base: str, user: str = "demo", password: str = "right") -> Browser:
    """Return a browser that is signed in."""
    visitor = browser(base)
    answer = await visitor.json("POST", "/login", {"username": user, "password": password})
    assert answer == (200, {"user": user})
    return visitor


async def who(visitor: Browser) -> str | None:
    """Return whom the server takes *visitor* for."""
    status, body = await visitor.json("GET", "/session")
    assert status == 200
    return body["user"]  # type: ignore[no-any-return]


def add_account(directory: Path, name: str, **changes: Any) -> None:
    """Put an account with the password `right` in the file, or change the one there."""
    account = Account(hash_password("right", CHEAP), **{"valid_after_ms": 0, **changes})
    AccountFile(directory / "data" / "accounts.json").edit(lambda accounts: accounts.update({name: account}))


def until(condition: Callable[[], object]) -> None:
    """Wait for what a server does in its own time."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def until_signed_out(visitor: Browser) -> None:
    """Wait until the server no longer takes *visitor* for anybody."""
    deadline = time.monotonic() + WAIT_S
    while await who(visitor) is not None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def is_refused(base: str) -> bool:
    """Whether nobody listens there any more."""
    host, _, port = base.removeprefix("http://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), WAIT_S).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return (
            False  # it closed while we were in its queue; whether anybody else listens, the next look tells
        )
    return False


# --- it starts ---


@BOTH_LOOPS
@pytest.mark.gen_test
async def test_banner_has_all_that_is_needed_to_sign_in(tmp_path: Path, program: tuple[str, ...]) -> None:
    """The address and the demo password printed at the start are ready to paste, and work."""
    with Running(tmp_path, program=program) as server:
        base, password = server.base(), server.demo_password()
        visitor = browser(base)
        wrong = await visitor.json("POST", "/login", {"username": "demo", "password": password + "x"})
        page = await visitor.submit("/login", "/login", username="demo", password=password, next="/")

        assert wrong[0] == 401
        assert (page.code, await who(visitor)) == (303, "demo")
        assert server.end() == 0


def test_demo_password_is_new_at_each_start(tmp_path: Path) -> None:  # E18
    """There is no default password to know; who wants no demo account gets none."""
    passwords = []
    for _ in range(2):
        with Running(tmp_path) as server:
            server.base()
            passwords.append(server.demo_password())
    with Running(tmp_path, "--no-demo") as server:
        server.base()
        status = server.end()

    assert len(set(passwords)) == 2
    assert min(map(len, passwords)) >= 16
    assert (status, server._lines.empty()) == (0, True)
    assert "nobody can sign in" in server.errors()


@pytest.mark.gen_test
async def test_settings_reach_the_server(tmp_path: Path) -> None:
    """What flags and variables say is what browsers meet."""
    variables = {"STORMCELLAR_COOKIE_NAME": "sid", "STORMCELLAR_CARRY": "cart", "STORMCELLAR_ADDRESS": "::1"}
    flags = ("--idle=20m", "--absolute=1h", "--anonymous-idle=10m", "--max-sessions-per-user=1")
    with Running(tmp_path, *flags, variables=variables) as server:
        base, password = server.base(), server.demo_password()
        visitor = browser(base)
        anonymous = (await visitor.json("PATCH", "/session", {"cart": 1, "other": 2}))[1]
        await visitor.json("POST", "/login", {"username": "demo", "password": password})
        signed_in = (await visitor.json("GET", "/session"))[1]
        await sign_in(base, password=password)

        assert base.startswith("http://[::1]:")
        assert 590 <= anonymous["idle_expires_in"] <= 600
        assert 1190 <= signed_in["idle_expires_in"] <= 1200
        assert 3590 <= signed_in["absolute_expires_in"] <= 3600
        assert signed_in["data"] == {"cart": 1}
        assert visitor.cookies.keys() == {"sid", "sid-device"}
        assert await who(visitor) is None


@pytest.mark.gen_test
async def test_behind_a_proxy_cookies_are_secure(tmp_path: Path) -> None:  # A4 A5
    """With the TLS proxy named, the cookie is of the kind that plain HTTP cannot set."""
    add_account(tmp_path, "alice")
    with Running(tmp_path, "--behind-proxy=127.0.0.1/32") as server:
        visitor = await sign_in(server.base(), "alice")

        assert visitor.cookies.keys() == {"__Host-id", "__Host-id-device"}


def test_files_are_made_where_it_was_started(tmp_path: Path) -> None:
    """`run.py` can be started from anywhere; without --data-dir its files are in `var` of that directory."""
    program = (
        "-c",
        f"import os, sys; sys.argv[1:] = ['--port', '0']; exec(open({str(ROOT / 'run.py')!r}).read())",
    )
    with Running(tmp_path, program=program) as server:
        server.base()
        assert server.end() == 0

    assert sorted(each.name for each in (tmp_path / "var").iterdir()) == ["secret.keys"]
    assert "created a file with a signing key" in server.errors()


# --- it says why not ---


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Return what is said on standard error by a server that does not start, with status 2."""
    capsys.readouterr()
    status = main(["--port", "0", *arguments])
    output = capsys.readouterr()
    assert (status, output.out) == (2, "")
    return [line for line in output.err.splitlines() if line]


@pytest.mark.usefixtures("signal_handlers")
@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        ("7Vq0mPzX3hBsT9kLwE5yRfJcA8uNdG2o", 0o644, "is accessible to other users: chmod 600"),
        ("", 0o600, "has no signing key"),
        ("short", 0o600, "is shorter than 32 bytes"),
        ("61oETzKXQAGaYdkL5gEmGeJJFuYh7EQnp2XdTP1o/Vo=", 0o600, "is not random"),
    ],
)
def test_unfit_secret_file_stops_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, mode: int, reason: str
) -> None:  # L1 L2 L3
    """Without a good key, kept from others, nothing is served."""
    path = tmp_path / "secret.keys"
    create_private(path, content)
    path.chmod(mode)

    found = refused(capsys, "--data-dir", str(tmp_path))

    assert len(found) == 1
    assert found[0].startswith("stormcellar: --secret-file: ") and reason in found[0]


@pytest.mark.usefixtures("signal_handlers")
def test_each_file_that_will_not_do_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory for a secret file and a broken account file are told together."""
    create_private(tmp_path / "accounts.json", "{")
    (tmp_path / "secret.keys").mkdir()

    found = refused(capsys, "--data-dir", str(tmp_path))

    assert found[0] == f"stormcellar: --secret-file: {tmp_path / 'secret.keys'} is not a regular file"
    assert found[1].startswith(
        f"stormcellar: --accounts: {tmp_path / 'accounts.json'} is not an account file"
    )
    assert len(found) == 2


@pytest.mark.usefixtures("signal_handlers")
def test_account_file_that_others_may_read_stops_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hashes are kept as private as keys."""
    create_private(tmp_path / "accounts.json", '{"version": 1, "accounts": {}}')
    (tmp_path / "accounts.json").chmod(0o660)

    path = tmp_path / "accounts.json"
    assert refused(capsys, "--data-dir", str(tmp_path)) == [
        f"stormcellar: --accounts: {path} is accessible to other users: chmod 600 {path}"
    ]


@pytest.mark.usefixtures("signal_handlers")
def test_data_directory_that_cannot_be_written_stops_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no key can be kept, the line names the place."""
    (tmp_path / "file").touch()

    found = refused(capsys, "--data-dir", str(tmp_path / "file"), "--no-demo")

    assert found[0] == f"stormcellar: --data-dir: {tmp_path / 'file'}: Not a directory"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_port_in_use_stops_it(tmp_path: Path, processes: str) -> None:
    """The line names the port and what to do, with one process as with several."""
    flags = ("--store=tests.support.running:GatedStore?", f"--processes={processes}", "--log-level=error")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Running(tmp_path, *flags, f"--port={port}") as server:
            assert server.process.wait(WAIT_S) == 2

    assert server.errors() == (
        f"stormcellar: --port: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another with --port\n"
    )
    assert server._lines.empty()


def test_address_of_another_machine_stops_it(tmp_path: Path) -> None:
    """An address that this machine does not have is told with its own flag."""
    flags = ("--address=192.0.2.1", "--behind-proxy=10.0.0.1", "--log-level=error")
    with Running(tmp_path, *flags) as server:
        assert server.process.wait(WAIT_S) == 2

    [line] = server.errors().splitlines()
    assert line.startswith("stormcellar: --address: cannot listen on 192.0.2.1:0: ")
    assert line.endswith("; choose another with --address")


def with_password(redis: Server) -> str:
    """Let *redis* ask for the password `hunter2`, and return the URL with it."""
    with socket.create_connection(("127.0.0.1", redis.port), WAIT_S) as connection:
        connection.sendall(b"CONFIG SET requirepass hunter2\r\n")
        assert connection.recv(100) == b"+OK\r\n"
    return redis.url.replace("//", "//:hunter2@")


@pytest.mark.parametrize("processes", [[], ["--processes=2"]])
def test_store_that_refuses_us_stops_it(
    tmp_path: Path, start_server: StartServer, processes: list[str]
) -> None:  # L8
    """A wrong password for the store will not mend itself: status 2, before anything listens."""
    url = with_password(start_server("redis8")).replace("hunter2", "hunter3")
    with Running(tmp_path, "--log-level=error", f"--store={url}", *processes) as server:
        assert server.process.wait(WAIT_S) == 2

    assert server.errors().splitlines() == [
        "stormcellar: --store: Redis does not accept the user and password; correct them in the URL; "
        "percent-encode reserved characters; check that the user exists and is on"
    ]
    assert server._lines.empty()


def test_plan_shows_no_secret(tmp_path: Path) -> None:  # L8
    """A traceback that shows what is served with shows neither keys nor the demo password."""
    startup = prepare(load_settings({"data_dir": str(tmp_path)}, {}))

    assert isinstance(startup, Startup)
    assert startup.reloadable.keys[0] not in repr(startup)
    assert startup.demo_password not in repr(startup)
    assert "argon2" not in repr(startup)


@pytest.mark.gen_test
async def test_logs_hold_no_secret(tmp_path: Path, start_server: StartServer) -> None:  # I2 L8
    """At the most talkative level no key, password, cookie or store password is written."""
    redis = start_server("redis8")
    url = with_password(redis)
    with Running(tmp_path, "--log-level=debug", f"--store={url}") as server:
        base, password = server.base(), server.demo_password()
        visitor = await sign_in(base, password=password)
        await visitor.json("PATCH", "/session", {"note": "private"})
        redis.kill()
        await visitor.json("GET", "/session")
        await visitor.get("/login?next=/%3Fhunter4")
        server.end()

    shown = server.errors()
    [key] = re.findall(r"^[^#\n]+$", (tmp_path / "data" / "secret.keys").read_text(), re.MULTILINE)
    assert "/session" in shown
    assert [
        secret for secret in ("hunter", key, password, "private", visitor.cookies["id"]) if secret in shown
    ] == []


# --- the store is down ---


@pytest.mark.gen_test
async def test_store_down_at_the_start_is_waited_for(
    tmp_path: Path, start_server: StartServer
) -> None:  # G13
    """Without its store it starts, says that it is not ready, and serves as soon as the store is up."""
    redis = start_server("redis8")
    redis.stop()
    with Running(tmp_path, f"--store={redis.url}") as server:
        base, password = server.base(), server.demo_password()
        down = get(base, "/healthz"), get(base, "/readyz")
        redis.start()

        until(lambda: get(base, "/readyz") == 200)

        assert down == (200, 503)
        assert await who(await sign_in(base, password=password)) == "demo"
    assert (
        "the store does not serve yet: nothing accepts connections at the address of the store; start the "
        "store, or correct host and port in the URL. /readyz reports when it does"
    ) in server.errors()


# --- accounts change while it runs ---


@pytest.mark.gen_test
async def test_disabled_account_is_out_in_a_moment(tmp_path: Path) -> None:  # C11
    """Who is disabled, or removed, is signed out without a restart, and cannot come back."""
    add_account(tmp_path, "alice")
    add_account(tmp_path, "bob")
    with Running(tmp_path) as server:
        base = server.base()
        alice, bob = await sign_in(base, "alice"), await sign_in(base, "bob")
        add_account(tmp_path, "alice", disabled=True)

        await until_signed_out(alice)

        again = await browser(base).json("POST", "/login", {"username": "alice", "password": "right"})
        assert again[0] == 401
        assert await who(bob) == "bob"


@pytest.mark.gen_test
async def test_account_added_again_does_not_revive_sessions(tmp_path: Path) -> None:  # C11
    """A session of a removed account stays ended when somebody else gets the name."""
    add_account(tmp_path, "alice")
    with Running(tmp_path) as server:
        base = server.base()
        alice = await sign_in(base, "alice")
        before = alice.copy()
        # Removed and added between two looks at the file: only the moment tells the two accounts apart.
        add_account(tmp_path, "alice", valid_after_ms=int(time.time() * 1000) + 1)

        await until_signed_out(before)

        assert await who(await sign_in(base, "alice")) == "alice"
        assert await who(alice) is None


@pytest.mark.gen_test
async def test_first_account_ends_the_demo(tmp_path: Path) -> None:  # E18
    """As soon as there is a real account, nobody signs in with the demo one, nor stays signed in."""
    with Running(tmp_path) as server:
        base, password = server.base(), server.demo_password()
        demo = await sign_in(base, password=password)
        add_account(tmp_path, "alice")

        await until_signed_out(demo)

        again = await browser(base).json("POST", "/login", {"username": "demo", "password": password})
        assert again[0] == 401
        assert await who(await sign_in(base, "alice")) == "alice"


@pytest.mark.parametrize("backend", ["sqlite", "redis8"])
@pytest.mark.gen_test
async def test_restart_keeps_people_signed_in(
    tmp_path: Path, backend: str, request: pytest.FixtureRequest
) -> None:  # L6
    """With the same data directory and a store that lasts, a restart is not noticed."""
    add_account(tmp_path, "alice")
    flags = (f"--store={request.getfixturevalue(backend).url}", f"--store-prefix={tmp_path.name}")
    with Running(tmp_path, *flags) as server:
        alice = await sign_in(server.base(), "alice")
        await alice.json("PATCH", "/session", {"cart": [1]})
        assert server.end() == 0
    with Running(tmp_path, *flags) as server:
        alice.base = server.base()

        status, body = await alice.json("GET", "/session")

    assert (status, body["user"], body["data"]) == (200, "alice", {"cart": [1]})


@pytest.mark.gen_test
async def test_restart_ends_demo_sessions(tmp_path: Path, redis8: Backend) -> None:  # E18
    """A demo session of an earlier start was signed in with another password, and is no longer valid."""
    flags = (f"--store={redis8.url}", f"--store-prefix={tmp_path.name}")
    with Running(tmp_path, *flags) as server:
        base, password = server.base(), server.demo_password()
        demo = await sign_in(base, password=password)
        server.end()
    with Running(tmp_path, *flags) as server:
        demo.base = server.base()

        assert await who(demo) is None
        again = await demo.json("POST", "/login", {"username": "demo", "password": password})
        assert again[0] == 401


# --- it ends ---


class HeldUp:
    """A signed-in visitor whose change waits in the store, all on one connection and so in one process."""

    def __init__(self, base: str, password: str) -> None:
        self._connection = HTTPConnection(base.removeprefix("http://"), timeout=WAIT_S)
        signed_in = ask(self._connection, "POST", "/login", {"username": "demo", "password": password})
        assert signed_in[0] == 200
        self.answer: tuple[int, Any] | None = None
        self._thread = threading.Thread(target=self._change, args=[signed_in[2]], daemon=True)
        self._thread.start()

    def _change(self, cookie: str) -> None:
        with suppress(OSError, HTTPException):
            self.answer = ask(self._connection, "PATCH", "/session", {"saved": True}, cookie=cookie)[:2]

    def wait(self) -> tuple[int, Any] | None:
        """Return what was answered, None where the connection broke."""
        self._thread.join(WAIT_S)
        self._connection.close()
        return self.answer


@BOTH_LOOPS
@STOP_SIGNALS
@pytest.mark.parametrize("processes", ["1", "2"])
def test_requests_in_flight_are_finished(
    tmp_path: Path, program: tuple[str, ...], number: int, processes: str
) -> None:
    """Told to stop, it takes no new connections, saves and answers what it has begun, and ends well."""
    flags = (f"--store=tests.support.running:GatedStore?{tmp_path}", f"--processes={processes}")
    with Running(tmp_path, *flags, program=program) as server:
        base = server.base()
        request = HeldUp(base, server.demo_password())
        until((tmp_path / "reached").exists)

        # As a terminal's Ctrl-C, or a supervisor that signals every process of the service.
        os.killpg(server.process.pid, number)

        until(lambda: is_refused(base))
        assert (request.answer, server.process.poll()) == (None, None)
        (tmp_path / "go").touch()
        status, body = request.wait() or (0, {})
        assert (status, body["data"]) == (200, {"saved": True})
        assert (tmp_path / "applied").read_text() == "APPLIED"
        assert server.process.wait(WAIT_S) == 0
    assert "Traceback" not in server.errors()


def test_one_process_can_be_told_to_stop_any_number_of_times(tmp_path: Path) -> None:
    """A single process of several that is signalled, twice even, finishes its request and is replaced."""
    flags = (f"--store=tests.support.running:GatedStore?{tmp_path}", "--processes=2")
    with Running(tmp_path, *flags) as server:
        base = server.base()
        request = HeldUp(base, server.demo_password())
        until((tmp_path / "reached").exists)
        first = Workers(server, base).pids
        for pid in first * 2:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.01)
        (tmp_path / "go").touch()

        assert request.wait() is not None
        until(lambda: len(set(server.children()) - set(first)) == 2)
        assert get(base, "/healthz") == 200
        assert server.end() == 0
    assert server.errors().count("ended with status 0; starting another") == 2


@BOTH_LOOPS
@STOP_SIGNALS
@pytest.mark.parametrize(("processes", "statuses"), [("1", (-15, -2)), ("2", (1,))])
def test_second_signal_ends_it_at_once(
    tmp_path: Path, program: tuple[str, ...], number: int, processes: str, statuses: tuple[int, ...]
) -> None:
    """Whoever asks twice does not wait for requests in flight; no process is left behind."""
    flags = (f"--store=tests.support.running:GatedStore?{tmp_path}", f"--processes={processes}")
    with Running(tmp_path, *flags, program=program) as server:
        base = server.base()
        request = HeldUp(base, server.demo_password())
        until((tmp_path / "reached").exists)
        children = server.children() if processes != "1" else []
        server.process.send_signal(signal.SIGTERM)
        until(lambda: is_refused(base))

        status = server.end(number)

        assert status in statuses
        assert not any(map(is_running, children))
        assert request.wait() is None
    assert "Traceback" not in server.errors()


@BOTH_LOOPS
@STOP_SIGNALS
def test_signal_right_after_the_banner(tmp_path: Path, program: tuple[str, ...], number: int) -> None:
    """Who waits for the banner and stops it then gets an orderly end, every time."""
    for _ in range(3):
        with Running(tmp_path, program=program) as server:
            server.line()

            assert server.end(number) == 0
        assert "Traceback" not in server.errors()


@STOP_SIGNALS
@pytest.mark.parametrize("processes", ["1", "2"])
def test_signal_while_it_starts(tmp_path: Path, number: int, processes: str) -> None:
    """A stop that comes before the banner is kept until it can be obeyed."""
    flags = (f"--store=tests.support.running:GatedStore?{tmp_path}", f"--processes={processes}")
    with Running(tmp_path, *flags) as server:
        while not (tmp_path / "data" / "secret.keys").exists():
            assert server.process.poll() is None
            time.sleep(0.001)

        assert server.end(number) == 0
    assert "Traceback" not in server.errors()


# --- several processes ---


@pytest.mark.parametrize(("processes", "kind"), [("1", socket.socket), ("2", SharedSocket)])
def test_several_processes_share_what_they_listen_on(tmp_path: Path, processes: str, kind: type) -> None:
    """On every address, and only where there are several, connections are handed out a few at a time."""
    flags = {"processes": processes, "store": "redis", "port": "0", "address": "localhost"}
    listening = listen(prepare(load_settings({"data_dir": str(tmp_path), **flags}, {})))

    assert {type(each) for each in listening.sockets} == {kind}
    for each in listening.sockets:
        each.close()


class Workers:
    """The children of a server, one at a time: the others are frozen while a connection is made."""

    def __init__(self, server: Running, base: str) -> None:
        self._address = base.removeprefix("http://")
        self._connections: list[HTTPConnection] = []
        until(lambda: len(server.children()) == 2)
        self.pids = server.children()

    def connect(self, pid: int) -> HTTPConnection:
        """Return an open connection to the process *pid*."""
        others = [each for each in self.pids if each != pid]
        for each in others:
            os.kill(each, signal.SIGSTOP)
        connection = HTTPConnection(self._address, timeout=WAIT_S)
        self._connections.append(connection)
        assert ask(connection, "GET", "/healthz")[0] == 200
        for each in others:
            os.kill(each, signal.SIGCONT)
        return connection

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.close()


def ask(
    connection: HTTPConnection, method: str, path: str, body: Any = None, *, cookie: str = ""
) -> tuple[int, Any, str]:
    """Send one request on *connection*; return the status, the value answered and the cookie set."""
    headers = {"Accept": "application/json", "Content-Type": "application/json", "Cookie": cookie}
    sent = {
        name: value
        for name, value in headers.items()
        if value and (name != "Content-Type" or body is not None)
    }
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    answer = connection.getresponse()
    content, lines = answer.read(), answer.headers.get_all("Set-Cookie") or []
    return (
        answer.status,
        json.loads(content) if content else None,
        next((line.partition(";")[0] for line in lines if line.startswith("id=")), ""),
    )


@pytest.fixture(params=["sqlite", "redis8"])
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    """A server of two processes with their sessions in a file, or in Redis."""
    store = request.getfixturevalue(request.param).url
    flags = ("--processes=2", f"--store={store}", f"--store-prefix={tmp_path.name}")
    with Running(tmp_path, *flags) as server:
        yield server


def test_processes_are_one_server(two: Running) -> None:  # D11
    """A demo sign-in on one counts on the other, and a logout on that one ends it on both at once."""
    workers = Workers(two, two.base())
    password = two.demo_password()
    one, other = (workers.connect(pid) for pid in workers.pids)
    credentials = {"username": "demo", "password": password}
    signed_in = [ask(each, "POST", "/login", credentials) for each in (one, other)]
    cookie = signed_in[0][2]
    before = [ask(each, "GET", "/session", cookie=cookie)[1]["user"] for each in (one, other)]
    logout = ask(other, "POST", "/logout", {}, cookie=cookie)
    after = [ask(each, "GET", "/session", cookie=cookie)[1]["user"] for each in (one, other)]

    assert [answer[:2] for answer in signed_in] == [(200, {"user": "demo"})] * 2
    assert (before, logout[0], after) == (["demo", "demo"], 204, [None, None])
    assert len(workers.pids) == 2
    workers.close()
    assert two.end() == 0
    assert not any(map(is_running, workers.pids))


def test_killed_process_is_replaced(two: Running) -> None:
    """When a process is killed, the other goes on serving and a new one takes its place."""
    workers = Workers(two, base := two.base())
    password = two.demo_password()
    first, other = workers.pids
    cookie = ask(workers.connect(first), "POST", "/login", {"username": "demo", "password": password})[2]
    os.kill(first, signal.SIGKILL)
    until(lambda: len(set(two.children()) - {first}) == 2)
    [new] = set(two.children()) - {other}
    workers.pids = two.children()

    assert ask(workers.connect(new), "GET", "/session", cookie=cookie)[1]["user"] == "demo"
    assert get(base, "/readyz") == 200
    workers.close()
    assert two.end(signal.SIGINT) == 0


def test_killed_parent_ends_the_server(two: Running) -> None:
    """Children do not outlive a parent that was killed: they stop, and the port is free again."""
    base = two.base()
    children = Workers(two, base).pids
    two.end(signal.SIGKILL)

    until(lambda: not any(map(is_running, children)))

    assert is_refused(base)
