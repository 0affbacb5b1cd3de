"""SIGHUP: new keys, a new certificate, another log file, and nobody is signed out by it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import ssl
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets

from stormcellar.accounts.directory import MemoryAccounts
from stormcellar.accounts.passwords import PasswordChecker
from stormcellar.accounts.throttle import Rules
from stormcellar.events import Event, Kind
from stormcellar.private_files import replace_private
from stormcellar.runtime import server as app
from stormcellar.runtime.load_settings import load_settings
from stormcellar.runtime.server import RateLimits, Server
from stormcellar.runtime.startup import prepare
from tests.runtime.test_serve import Workers, add_account, ask, until
from tests.support.backends import Backend
from tests.support.browser import Browser, token
from tests.support.certificates import Authority
from tests.support.running import ROOT, Running, connect
from tests.support.site import ACCOUNTS, CHEAP, PASSWORD

OLD, NEW, THIRD = (f"{letter}7Vq0mPzX3hBsT9kLwE5yRfJcA8uNdG2o" for letter in "ABC")


def version(key: str) -> str:
    """Return how a cookie names the key that signed it."""
    return str(int.from_bytes(sha256(key.encode()).digest()[:2], "big"))


class Live:
    """One process of the server within this one, on files that a test changes."""

    def __init__(self, directory: Path, *keys: str, **flags: str) -> None:
        self.keys, self.audit = directory / "secret.keys", directory / "audit.log"
        self.write(*keys)
        given = {"data_dir": str(directory), "audit_log": str(self.audit), "demo": "False", **flags}
        settings = load_settings(given, {})
        self._checker = PasswordChecker(argon2_hasher=CHEAP)
        self.reloadable = prepare(settings).reloadable
        self.server = Server(
            settings, accounts=MemoryAccounts(ACCOUNTS, checker=self._checker), reloadable=self.reloadable
        )
        self.events: list[Event] = []
        self.server.sessions.events.subscribe(self.events.append)
        self._stop = asyncio.Event()
        sockets = bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        self._running = asyncio.ensure_future(self.server.run(sockets, self._stop))
        self._client = AsyncHTTPClient(force_instance=True)

    def write(self, *keys: str) -> None:
        """Put *keys* in the secret file."""
        replace_private(self.keys, "\n".join(keys) + "\n")

    def browser(self) -> Browser:
        """Return a browser without cookies."""
        return Browser(self._client, f"http://127.0.0.1:{self.port}")

    async def signed_in(self) -> Browser:
        """Return a browser in which alice has signed in."""
        browser = self.browser()
        answer = await browser.json("POST", "/login", {"username": "alice", "password": PASSWORD})
        assert answer == (200, {"user": "alice"})
        return browser

    async def close(self) -> None:
        """Stop."""
        self._stop.set()
        await self._running
        self._client.close()
        self._checker.close()
        self.reloadable.audit.close()


OpenLive = Callable[..., Live]


@pytest.fixture
def open_live(io_loop: IOLoop, tmp_path: Path) -> Iterator[OpenLive]:
    """A function, for use while the loop runs, that starts a server on the given keys and flags."""
    started: list[Live] = []

    def start(*keys: str, **flags: str) -> Live:
        started.append(Live(tmp_path, *keys, **flags))
        return started[-1]

    yield start
    for each in started:
        io_loop.run_sync(each.close)


@pytest.fixture
def live(io_loop: IOLoop, open_live: OpenLive) -> Live:
    """A server with one key."""

    async def start() -> Live:
        return open_live(OLD)

    return io_loop.run_sync(start)  # type: ignore[no-any-return]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a new key sign as soon as the loop turns."""
    monkeypatch.setattr(app, "SIGN_AFTER_S", 0)


def signer(browser: Browser) -> str:
    """Return the version of the key that signed the browser's cookie."""
    return browser.cookies["id"].split("|")[1].partition(":")[2]


async def who(browser: Browser) -> tuple[int, str | None]:
    """Return the status, and whom the server takes *browser* for."""
    status, body = await browser.json("GET", "/session")
    return status, body["user"]


# --- keys ---


@pytest.mark.gen_test
async def test_a_new_key_verifies_before_it_signs(live: Live) -> None:  # L4 L7
    """For a while it only verifies, so that no process meets a cookie of a key that it has not read."""
    before = await live.signed_in()
    live.write(NEW, OLD)
    live.server.reload()
    during = await live.signed_in()
    elsewhere = during.copy()
    live.server.sessions.use_keys([NEW])
    foreign = await live.signed_in()
    live.server.reload()

    assert (signer(during), signer(foreign)) == (version(OLD), version(NEW))
    assert [await who(each) for each in (before, elsewhere, foreign)] == [(200, "alice")] * 3


@pytest.mark.gen_test
@pytest.mark.usefixtures("at_once")
async def test_a_new_first_key_signs_in_the_end(live: Live) -> None:  # L4 L7
    """And whoever was signed in with the old one stays so, with forms that were rendered before."""
    browser = await live.signed_in()
    page = await browser.get("/")
    live.write(NEW, OLD)
    live.server.reload()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert signer(await live.signed_in()) == version(NEW)
    assert await who(browser) == (200, "alice")
    assert (await browser.post_form("/logout", token(page))).code == 303


@pytest.mark.gen_test
async def test_a_dropped_key_counts_no_more(open_live: OpenLive) -> None:  # L4
    """At once, for it may have leaked: its cookies are those of a visitor, and nothing fails."""
    live = open_live(OLD, NEW)
    browser = await live.signed_in()
    live.write(NEW)
    live.server.reload()

    assert await who(browser) == (200, None)
    assert signer(await live.signed_in()) == version(NEW)


@pytest.mark.gen_test
async def test_the_second_reload_of_two_counts(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was taken back before it signed never does; the next one has its own time."""
    monkeypatch.setattr(app, "SIGN_AFTER_S", 0)
    live.write(NEW, OLD)
    live.server.reload()
    monkeypatch.setattr(app, "SIGN_AFTER_S", 3600)
    live.write(THIRD, OLD)
    live.server.reload()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    during = signer(await live.signed_in())
    monkeypatch.setattr(app, "SIGN_AFTER_S", 0)
    live.server.reload()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert (during, signer(await live.signed_in())) == (version(OLD), version(THIRD))


JUNK = [
    *("x", "hello", "", "2|", "1:2:3", "2|1:0|", "2|5:99999|10:1900000000|2:id|4:AAAA|" + "0" * 64),
    *("a|b|c", "2|1:0|10:1900000000|2:id|4:AAAA|" + "f" * 64, "!" * 600, "2|9:999999999|x"),
]


@pytest.mark.gen_test
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
async def test_junk_against_rotated_keys_is_a_visitor(junk: str, live: Live) -> None:  # L4
    """With several keys, too, a cookie that is none of ours is nobody's, never a 500."""
    live.write(THIRD, NEW, OLD)
    live.server.reload()
    browser = live.browser()
    browser.cookies = {"id": junk, "id-form": junk}

    assert await who(browser) == (200, None)
    assert (await browser.get("/login")).code == 200


# --- what cannot be read ---


@pytest.mark.gen_test
@pytest.mark.parametrize("spoil", ["gone", "empty", "weak", "open"])
async def test_keys_that_will_not_do_change_nothing(
    spoil: str, live: Live, caplog: pytest.LogCaptureFixture
) -> None:  # L7 L8
    """The old ones stay in use, the log has one line that says why and shows no key."""
    browser = await live.signed_in()
    live.write(*{"empty": [""], "weak": ["short"]}.get(spoil, [NEW]))
    if spoil == "open":
        live.keys.chmod(0o644)
    elif spoil == "gone":
        live.keys.unlink()
    caplog.clear()
    live.server.reload()
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]

    assert len(errors) == 1
    assert errors[0].startswith("keys unchanged: ")
    assert NEW not in caplog.text
    assert await who(browser) == (200, "alice")
    assert signer(await live.signed_in()) == version(OLD)


@pytest.mark.gen_test
async def test_what_was_read_is_told(live: Live) -> None:  # I1
    """One event a reload; what could not be read is missing in it."""
    live.server.reload()
    live.keys.unlink()
    live.server.reload()

    assert [(e.kind, e.reason) for e in live.events if e.kind is Kind.RELOADED] == [
        (Kind.RELOADED, "keys, certificate, audit log"),
        (Kind.RELOADED, "certificate, audit log"),
    ]


@pytest.mark.gen_test
async def test_the_audit_log_moves_on(live: Live, tmp_path: Path) -> None:
    """What was moved away is finished, and a new file begun, with the reload itself."""
    live.audit.rename(tmp_path / "audit.1")
    await live.signed_in()
    live.server.reload()

    old, new = (
        [json.loads(line)["event"] for line in path.read_text().splitlines()]
        for path in (tmp_path / "audit.1", live.audit)
    )
    assert (old, new) == (["created", "authenticated"], ["reloaded"])


# --- the certificate ---


async def serial(live: Live, client: ssl.SSLContext) -> int:
    """Return the serial number of the certificate that is served now."""
    _, writer = await asyncio.open_connection("127.0.0.1", live.port, ssl=client)
    certificate = writer.get_extra_info("peercert")
    writer.close()
    return int(certificate["serialNumber"], 16)


@pytest.mark.gen_test
async def test_new_handshakes_get_the_new_certificate(
    open_live: OpenLive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # L7
    """A pair that does not fit changes nothing; connections that are open go on."""
    authority = Authority(tmp_path)
    files = authority.issue()
    live = open_live(OLD, tls_cert=str(files.certificate), tls_key=str(files.key))
    client = files.client()
    first = await serial(live, client)
    reader, writer = await asyncio.open_connection("127.0.0.1", live.port, ssl=client)
    key = files.key.read_text()

    authority.issue()
    good = files.key.read_text()
    replace_private(files.key, key)
    live.server.reload()
    unfit = await serial(live, client)
    replace_private(files.key, good)
    live.server.reload()
    second = await serial(live, client)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()

    assert (unfit == first, second == first) == (True, False)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        f"certificate unchanged: {files.key} is not the key of {files.certificate}"
    ]


# --- as it is run ---

# Else the new key would sign only after seconds.
SOON = (
    "-c",
    "import sys; from stormcellar.cli import main; from stormcellar.runtime import server; "
    "server.SIGN_AFTER_S = 0.05; sys.exit(main.main())",
)


def rotate(server: Running, directory: Path) -> None:
    """Put a new first key in the secret file, and signal."""
    path = directory / "data" / "secret.keys"
    replace_private(path, NEW + "\n" + path.read_text())
    server.process.send_signal(signal.SIGHUP)


def events(directory: Path) -> list[str]:
    """Return the kinds in the audit log."""
    return [json.loads(line)["event"] for line in (directory / "audit.log").read_text().splitlines()]


def sign_in(base: str) -> str:
    """Return the cookie of a new session of alice."""
    connection = connect(base)
    answer = ask(connection, "POST", "/login", {"username": "alice", "password": "right"})
    connection.close()
    assert answer[0] == 200
    return answer[2]


def user_of(base: str, cookie: str) -> str | None:
    """Return whom the server takes the bearer of *cookie* for."""
    connection = connect(base)
    status, body, _ = ask(connection, "GET", "/session", cookie=cookie)
    connection.close()
    assert status == 200
    return body["user"]  # type: ignore[no-any-return]


def is_signed_by(cookie: str, key: str) -> bool:
    """Whether *key* signed it."""
    return cookie.split("|")[1].partition(":")[2] == version(key)


def test_one_process_takes_a_new_key(tmp_path: Path) -> None:  # L4 L7
    """Without a restart: the old cookie still counts, new ones are signed with the new key."""
    add_account(tmp_path, "alice")
    with Running(tmp_path, f"--audit-log={tmp_path}/audit.log", program=SOON) as server:
        base = server.base()
        old = sign_in(base)
        rotate(server, tmp_path)
        until(lambda: "reloaded" in events(tmp_path))
        until(lambda: is_signed_by(sign_in(base), NEW))

        assert user_of(base, old) == "alice"
        assert server.end() == 0
    assert "Traceback" not in server.errors()


def test_every_process_takes_a_new_key(tmp_path: Path, redis8: Backend) -> None:  # D11 L4 L7
    """One signal to the parent: each of its children accepts what any of them signed, before and after.

    So does one that takes another's place later.
    """
    add_account(tmp_path, "alice")
    flags = ("--processes=2", f"--store={redis8.url}", f"--store-prefix={tmp_path.name}")
    with Running(tmp_path, *flags, f"--audit-log={tmp_path}/audit.log", program=SOON) as server:
        base = server.base()
        workers = Workers(server, base)
        old = sign_in(base)
        rotate(server, tmp_path)
        until(lambda: events(tmp_path).count("reloaded") == 2)
        until(lambda: is_signed_by(new_by(workers, workers.pids[0]), NEW))
        new = new_by(workers, workers.pids[0])
        users = [
            ask(workers.connect(pid), "GET", "/session", cookie=cookie)[1]["user"]
            for pid in workers.pids
            for cookie in (old, new)
        ]
        killed = workers.pids[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(set(server.children()) - {killed}) == 2)
        workers.pids = server.children()
        users += [
            ask(workers.connect(pid), "GET", "/session", cookie=cookie)[1]["user"]
            for pid in workers.pids
            for cookie in (old, new)
        ]
        workers.close()

        assert users == ["alice"] * 8
        assert server.end() == 0
    assert "Traceback" not in server.errors()


def new_by(workers: Workers, pid: int) -> str:
    """Return the cookie of a new session that the process *pid* made."""
    return ask(workers.connect(pid), "POST", "/login", {"username": "alice", "password": "right"})[2]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_that_nobody_foresaw_ends_nobody(tmp_path: Path, processes: int) -> None:  # L7
    """A reload that raises is logged, and the server goes on with what it has."""
    add_account(tmp_path, "alice")
    program = (
        "import sys; from stormcellar.cli.main import main; "
        "from stormcellar.runtime.reloadable import Reloadable; "
        "Reloadable._steps = {'keys': lambda self: 1 / 0}; sys.exit(main())"
    )
    flags = ("--store=tests.support.running:GatedStore?", f"--processes={processes}")
    with Running(tmp_path, *flags, program=("-c", program)) as server:
        base = server.base()
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.errors().count("ZeroDivisionError") == (3 if processes == 2 else 1))

        assert sign_in(base)
        assert server.end() == 0


@pytest.mark.gen_test
async def test_processes_go_on_counting_alike_after_a_key_was_dropped(live: Live) -> None:  # E12
    """Whoever reloads counts under the key that whoever starts then does."""
    live.write(NEW, OLD)
    live.server.reload()
    live.write(NEW)
    live.server.reload()
    fresh = RateLimits(live.server.sessions.store, Rules(), key=NEW, visitors=1)

    assert live.server._rate_limits.throttle.fingerprint("x") == fresh.throttle.fingerprint("x")


@pytest.mark.parametrize("processes", [[], ["--processes=2", "--store=tests.support.running:GatedStore?"]])
def test_spoilt_files_end_nobody(tmp_path: Path, processes: list[str]) -> None:  # L7
    """A failed reload costs a line in the log of each process, and nothing else."""
    add_account(tmp_path, "alice")
    with Running(tmp_path, f"--audit-log={tmp_path}/audit.log", *processes) as server:
        base = server.base()
        (tmp_path / "data" / "secret.keys").chmod(0o644)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: events(tmp_path).count("reloaded") == (2 if processes else 1))

        assert sign_in(base)
        assert server.end() == 0
    assert server.errors().count("keys unchanged: ") == (3 if processes else 1)


def test_a_signal_while_it_starts_is_kept(tmp_path: Path) -> None:
    """SIGHUP before the banner is no death: it is obeyed as soon as there is something to reload."""
    with Running(tmp_path, f"--audit-log={tmp_path}/audit.log", program=(str(ROOT / "run.py"),)) as server:
        until((tmp_path / "data" / "secret.keys").exists)
        server.process.send_signal(signal.SIGHUP)
        server.base()
        until(lambda: "reloaded" in events(tmp_path))

        assert server.end() == 0
