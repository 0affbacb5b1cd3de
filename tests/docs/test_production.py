"""docs/production.md: its program behind a proxy, the addresses of development, and work in a thread."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from stormcellar import SessionEnded, SessionManager, SessionMixin, session_settings
from stormcellar.testing import Client, make_manager
from tests.docs.chapter import install, run
from tests.support.chromium import Chromium
from tests.support.running import environment

PAGE = "production.md"
ELSEWHERE = "203.0.113.7"


class Visits(SessionMixin, RequestHandler):
    """Counts the visits of a browser."""

    def get(self) -> None:
        """Count one."""
        self.session["visits"] = self.session.get("visits", 0) + 1
        self.write({"visits": self.session["visits"]})


async def fetch(port: int, **headers: str) -> HTTPResponse:
    """GET the page as somebody on this machine does, the proxy perhaps."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/", headers=named, raise_error=False)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """The program of the page, with a key of two lines and the memory store."""
    install(PAGE, tmp_path, monkeypatch)
    (tmp_path / "session.key").write_text(f"{'a' * 64}\n{'b' * 64}\n")
    variables = {"KEY_FILE": "session.key", "STORE": "memory:", "PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "serve.py"],
        cwd=tmp_path,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    with suppress(ProcessLookupError):
        process.kill()
    process.communicate()


@pytest.mark.gen_test
async def test_program_behind_a_proxy(program: subprocess.Popen[str]) -> None:
    """Its cookie is Secure, it knows the client's address, and SIGTERM ends it in order."""
    assert program.stdout is not None
    port = int((await asyncio.to_thread(program.stdout.readline)).rpartition(" ")[2])
    first = await fetch(port, X_Real_Ip=ELSEWHERE, X_Scheme="https", Host="shop.example.org")
    appended = await fetch(port, X_Forwarded_For=f"198.51.100.1, {ELSEWHERE}")
    chosen = await fetch(port, X_Forwarded_For=ELSEWHERE, X_Real_Ip="198.51.100.1")
    program.send_signal(signal.SIGTERM)
    _, errors = await asyncio.to_thread(program.communicate)

    assert first.headers["Set-Cookie"].startswith("__Host-id=")
    assert (f'"{ELSEWHERE}"' in first.body.decode(), "Server" in first.headers) == (True, False)
    assert f'"{ELSEWHERE}"' in appended.body.decode()
    # The page warns of this: Tornado believes X-Real-Ip, whoever wrote it.
    assert '"198.51.100.1"' in chosen.body.decode()
    assert (program.returncode, errors) == (0, "")


@pytest.fixture
def sessions() -> SessionManager:
    """The manager of a program in development."""
    return make_manager()


@pytest.fixture
def app(sessions: SessionManager) -> Application:
    """A page that counts."""
    return Application([("/", Visits)], **session_settings(sessions))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost", 200),
        ("shop.localhost", 200),
        ("shop.test", 500),
        ("192.168.1.5", 500),
    ],
)
@pytest.mark.gen_test
async def test_addresses_of_development(
    http_server: HTTPServer, http_port: int, host: str, status: int
) -> None:
    """Those that the page lists work without TLS, and no other."""
    assert (await fetch(http_port, Host=f"{host}:{http_port}")).code == status


@pytest.mark.needs_server
@pytest.mark.gen_test
async def test_container_in_a_browser(tmp_path: Path) -> None:
    """With `secure=True` Chromium keeps the cookie of localhost over plain HTTP."""
    app = Application([("/", Visits)], **session_settings(make_manager(secure=True)))
    async with Client(app) as client:
        base = f"http://localhost:{client._connection.base_url.rpartition(':')[2]}"

        def visit_twice() -> str:
            with Chromium(tmp_path, base) as browser:
                browser.open("/")
                browser.open("/")
                return browser.find("body").text

        assert await asyncio.to_thread(visit_twice) == '{"visits": 2}'


@pytest.mark.gen_test
async def test_work_in_a_thread(sessions: SessionManager, http_server: HTTPServer, app: Application) -> None:
    """The message reaches the session; one of a session that is over is dropped."""
    names: dict[str, Any] = {"asyncio": asyncio, "suppress": suppress, "SessionEnded": SessionEnded}
    finish = run(PAGE, "def finish_report", **names)["finish_report"]
    loop = asyncio.get_running_loop()
    async with Client(app) as client:
        await client.force_login("alice")
        await asyncio.to_thread(finish, loop, sessions, client.handle)
        async with client.session_transaction() as session:
            messages = session.flashes()
        handle = client.handle
        await client.logout()
        await asyncio.to_thread(finish, loop, sessions, handle)

    assert messages == ["Your report is ready."]
