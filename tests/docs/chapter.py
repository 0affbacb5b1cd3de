"""The code in a page of docs/, as a reader copies it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.running import ROOT

FILE = re.compile(r'"""(\w+)\.py: ')


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the code blocks of *page* in *language*."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def install(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write each block of *page* that begins as a file, with `\"\"\"name.py: `, to *folder*, for import."""
    monkeypatch.syspath_prepend(folder)
    for block in blocks(page):
        if begins := FILE.match(block):
            (folder / f"{begins[1]}.py").write_text(block)
            # So that the module is gone after the test, like this one.
            monkeypatch.setitem(sys.modules, begins[1], ModuleType(begins[1]))
            del sys.modules[begins[1]]


def run(page: str, contains: str, **before: object) -> dict[str, Any]:
    """Run the first block of *page* that contains this text, and return what it defines.

    Args:
        before: Names that it uses without defining them.
    """
    block = next(each for each in blocks(page) if contains in each)
    names: dict[str, Any] = {"__name__": page, **before}
    exec(compile(block, page, "exec"), names)
    return names
