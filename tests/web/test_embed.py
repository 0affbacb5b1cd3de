"""`examples/embed.py` runs as it stands, and does what it shows."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop
from tornado.web import Application

from stormcellar import SessionManager
from stormcellar.testing import Client
from tests.support.backends import Backend
from tests.support.browser import Browser

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed.py"
PASSWORD = "open sesame"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embed", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


embed = _load()


@pytest.fixture
def sessions(io_loop: IOLoop) -> Iterator[SessionManager]:
    """The example's sessions, on its own store."""
    sessions, _ = embed.parse([])
    yield sessions
    io_loop.run_sync(sessions.aclose)


@pytest.fixture
def app(sessions: SessionManager) -> Application:
    """The example."""
    made: Application = embed.make_app(sessions, password=PASSWORD)
    return made


@pytest.mark.gen_test
async def test_visits_and_sign_in(client: Client) -> None:
    """Visits are counted and survive a sign-in, which changes the ID; a sign-out forgets them."""
    pages = [await client.get("/"), await client.get("/")]
    anonymous = client.cookies["id"]
    signed_in = await client.submit_form("/", {"name": "<Alice>", "password": PASSWORD})
    user, cookie = await client.user(), client.cookies["id"]
    pages.append(await client.get("/"))
    signed_out = await client.submit_form("/")
    pages.append(await client.get("/"))

    shown = [re.findall("Hello, (.*)</h1>\n<p>Visit (.*)\\.", page.text)[0] for page in pages]
    assert shown == [("visitor", "1"), ("visitor", "2"), ("&lt;Alice&gt;", "4"), ("visitor", "1")]
    assert [signed_in.code, signed_out.code] == [303, 303]
    assert (user, cookie != anonymous) == ("<Alice>", True)


@pytest.mark.parametrize("fields", [{"password": "wrong"}, {"password": PASSWORD + " "}, {"name": ""}])
@pytest.mark.gen_test
async def test_wrong_credentials(fields: dict[str, str], client: Client) -> None:
    """A wrong password, or no name, shows the form again."""
    response = await client.post("/login", {"name": "alice", "password": PASSWORD, **fields})

    assert response.code == 401
    assert "not the password" in response.text
    assert "Hello, visitor" in response.text


@pytest.mark.gen_test
async def test_form_without_token(client: Client) -> None:
    """A form from elsewhere is refused."""
    response = await client.post("/login", {"name": "alice", "password": PASSWORD}, form_token=False)

    assert response.code == 403


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nosuch://x"], "unknown store"),
        (["--key-file", "/nonexistent"], "/nonexistent"),
        (["--port", "x"], "--port"),
    ],
)
def test_bad_arguments(arguments, complaint, capsys):
    """A command line that makes no sense ends with status 2 and one line that says why."""
    with pytest.raises(SystemExit) as exit_:
        embed.parse(arguments)

    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_weak_key(tmp_path, capsys):
    """A key that is too short is refused."""
    key_file = tmp_path / "key"
    key_file.write_text("short\n")

    with pytest.raises(SystemExit):
        embed.parse(["--key-file", str(key_file)])

    assert "at least 32" in capsys.readouterr().err


@pytest.mark.gen_test
async def test_as_a_program(tmp_path):
    """Run as a program it prints its address, serves there, and ends cleanly when interrupted."""
    key_file = tmp_path / "key"
    key_file.write_text("k" * 40 + "\n")

    line, process = await started("--key-file", str(key_file))
    browser = Browser(AsyncHTTPClient(), line.split()[0])
    page = await browser.get("/")
    browser.client.close()
    status, errors = await stopped(process)

    assert b"Visit 1." in page.body
    assert (status, errors) == (0, b"")


@pytest.mark.gen_test
async def test_sessions_outlive_it_in_redis(tmp_path, redis8: Backend):
    """With a Redis URL and a key file the same program goes on counting after a restart."""
    key_file = tmp_path / "key"
    key_file.write_text("k" * 40 + "\n")
    browser = Browser(AsyncHTTPClient(), "")
    pages = []

    for _ in range(2):
        line, process = await started(redis8.url, "--key-file", str(key_file))
        browser.base = line.split()[0]
        pages.append(await browser.get("/"))
        await stopped(process)
    browser.client.close()

    assert [re.findall(rb"Visit (\d+)", page.body) for page in pages] == [[b"1"], [b"2"]]


async def started(*arguments: str, example: Path = EXAMPLE) -> tuple[str, asyncio.subprocess.Process]:
    """Run an example; return the line that it prints, and the process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(example), "--port", "0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(EXAMPLE.parent.parent)},
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("http://127.0.0.1:"), (await process.communicate())[1].decode()
    return line, process


async def stopped(process: asyncio.subprocess.Process) -> tuple[int | None, bytes]:
    """Interrupt it; return its status and its standard error."""
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    return process.returncode, errors
