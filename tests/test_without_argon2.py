"""The library runs without argon2; the login server says in one line which extra to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import ROOT, environment

WITHOUT = "import sys; sys.modules['argon2'] = None\n"
LIBRARY = """
import asyncio
import stormcellar, stormcellar.stores
for module in (stormcellar, stormcellar.stores):
    for name in module.__all__:
        getattr(module, name)

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

class Visits(stormcellar.SessionMixin, RequestHandler):
    def get(self):
        self.session["visits"] = self.session.get("visits", 0) + 1
        self.write(f"visit {self.session['visits']}")

async def main():
    store = stormcellar.stores.open_store("memory:")
    sessions = stormcellar.SessionManager(store, secrets=["k" * 43])
    server = HTTPServer(Application([("/", Visits)], **stormcellar.session_settings(sessions)))
    [listening] = bind_sockets(0, "127.0.0.1")
    server.add_socket(listening)
    answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/")
    print(answer.code, answer.body.decode(), answer.headers["Set-Cookie"].partition("=")[0])
    server.stop()
    await sessions.aclose()

asyncio.run(main())
"""
COMMAND = "from stormcellar.cli.main import main; sys.exit(main())"


def run(directory: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run *script* in a fresh interpreter that cannot import argon2."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + script, *arguments],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_library_serves_without_argon2(tmp_path: Path) -> None:
    """Every public name is importable, and a request with a session is answered."""
    ended = run(tmp_path, LIBRARY)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "200 visit 1 id\n", "")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (COMMAND, ["--no-demo"]),
        (COMMAND, ["serve"]),
        (COMMAND, ["doctor"]),
        (COMMAND, ["accounts", "list"]),
        (f"exec(open({str(ROOT / 'run.py')!r}).read())", []),
    ],
    ids=["no command", "serve", "doctor", "accounts", "run.py"],
)
def test_login_server_names_its_extra(tmp_path: Path, script: str, arguments: list[str]) -> None:
    """One line, status 2, and no file is made."""
    ended = run(tmp_path, script, *arguments)

    line = "stormcellar: argon2-cffi is not installed: pip install 'stormcellar[server]'\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line)
    assert list(tmp_path.iterdir()) == []


def test_signing_keys_need_no_argon2(tmp_path: Path) -> None:
    """`--help` and `secret` hash nothing."""
    assert run(tmp_path, COMMAND, "--help").returncode == 0
    assert run(tmp_path, COMMAND, "secret", "rotate").returncode == 0
