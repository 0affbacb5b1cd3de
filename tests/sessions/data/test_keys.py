"""Typed keys: a `str` when the program runs, a type for type checkers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mypy.api
import pytest

from stormcellar import Key
from tests.sessions.data.typed_lines import RIGHT, WRONG
from tests.support.running import ROOT

Lines = dict[int, list[str]]


def test_key_is_a_str_when_the_program_runs() -> None:
    """It costs nothing there, and any code that takes a key takes it."""
    assert type(Key[list[str]]("cart")) is str
    assert type(Key("cart")) is str
    assert Key[int]("visits") == "visits"


def test_invalid_key_is_refused_where_it_is_made() -> None:
    """A typing error shows at the import, not at the first request that writes."""
    with pytest.raises(ValueError, match="session key"):
        Key[int]("no blanks")


# --- type checkers ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, as an installation lays it out."""
    path = tmp_path_factory.mktemp("typed")
    for source, target in (("server", "stormcellar"), ("stores", "stormcellar/stores")):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / source, path / target, ignore=ignore)
    return path


def by_mypy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Return what `mypy --strict` reports on program.py, by line."""
    monkeypatch.setenv("MYPYPATH", str(folder))
    program, cache = str(folder / "program.py"), str(folder / ".cache")
    output, errors, _ = mypy.api.run(["--strict", "--config-file=", "--cache-dir", cache, program])
    assert not errors
    return by_line(re.findall(r"program\.py:(\d+): error: (.*)", output))


def by_pyright(folder: Path) -> Lines:
    """Return what pyright reports on program.py in its strict mode, by line."""
    config = {"typeCheckingMode": "strict", "extraPaths": ["."], "reportUnusedExpression": False}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "program.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return by_line((each["range"]["start"]["line"] + 1, each["message"]) for each in found)


def by_line(found: Any) -> Lines:
    """Return the messages by line."""
    lines: Lines = {}
    for line, message in found:
        lines.setdefault(int(line), []).append(message)
    return lines


def marked(program: str) -> list[int]:
    """Return the lines of *program* with the comment that both checkers must report them."""
    return [number for number, line in enumerate(program.split("\n"), 1) if "# error" in line]


def chapter() -> str:
    """Return the program in the chapter on types."""
    page = (ROOT / "docs" / "embedding.md").read_text()
    text = page.split("\n## Types of the values\n")[1].split("\n## ")[0]
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    return str(program)


@pytest.mark.parametrize("checker", [by_mypy, by_pyright])
@pytest.mark.parametrize("program", [chapter(), RIGHT + WRONG], ids=["chapter", "all"])
def test_checker_reports_the_wrong_lines_and_no_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, program: str, checker: Any
) -> None:
    """The chapter's program, and one with every method that takes a key."""
    (folder / "program.py").write_text(program)

    found = by_mypy(folder, monkeypatch) if checker is by_mypy else by_pyright(folder)

    assert marked(program)
    assert sorted(found) == marked(program), found
