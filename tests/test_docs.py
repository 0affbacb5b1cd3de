"""The documents: their links, their snippets, and what the site's navigation and reference list."""

from __future__ import annotations

import ast
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from urllib.parse import unquote

import pytest

import stormcellar
import stormcellar.stores
import stormcellar.testing
from tests.support.running import ROOT

DOCS = ROOT / "docs"
PAGES = sorted({ROOT / "README.md", *DOCS.rglob("*.md")} - {DOCS / "changelog.md"})
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def snippets(page: Path, language: str) -> list[str]:
    """Return the snippets of *page* in *language*."""
    return [dedent(text) for _, name, text in FENCE.findall(page.read_text()) if name == language]


def prose(page: Path) -> str:
    """Return *page* without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))


def anchors(page: Path) -> list[str]:
    """Return the anchors that a code host gives the headings of *page*."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", each) is not None for each in found)
        found.append(f"{anchor}-{count}" if count else anchor)
    return found


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link names a file of this repository, and an anchor one of its headings."""
    broken = []
    for _, _, target in LINK.findall(prose(page)):
        path, _, anchor = unquote(target).partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = page if not path else page.parent / path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert broken == []


@each_page
def test_every_picture_says_what_it_shows(page: Path) -> None:
    """For readers who do not see it."""
    assert [target for is_picture, text, target in LINK.findall(prose(page)) if is_picture and not text] == []


@each_page
def test_headings_go_down_one_level_at_a_time(page: Path) -> None:
    """One title, and no level is left out: the navigation and screen readers rely on it."""
    levels = [len(each) for each in re.findall(r"^(#+) ", FENCE.sub("", page.read_text()), re.M)]

    assert levels.count(1) == 1
    assert [b for a, b in pairwise(levels) if b > a + 1] == []


@each_page
def test_every_python_snippet_compiles(page: Path) -> None:
    """Also those that stand in a coroutine, and so begin with `await`."""
    for snippet in snippets(page, "python"):
        compile(snippet, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@each_page
def test_every_shell_snippet_parses(page: Path) -> None:
    """By bash itself, without running it."""
    for snippet in snippets(page, "sh"):
        done = subprocess.run(["bash", "-n"], input=snippet, capture_output=True, text=True, check=False)
        assert done.stderr == "", snippet


def test_index_lists_every_page_once() -> None:
    """The navigation of the site is made from its links."""
    listed = [target for _, _, target in LINK.findall((DOCS / "index.md").read_text())]
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*") if path.suffix in (".md", ".rst")}

    assert sorted(listed) == sorted(pages - {"index.md"})


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("library", stormcellar.__all__),
        ("stores", stormcellar.stores.__all__),
        ("testing", [*stormcellar.testing.__all__, "RequestOptions", "BodyOptions"]),
    ],
)
def test_reference_shows_every_public_name_once(page: str, names: list[str]) -> None:
    """A name that is exported is explained."""
    text = (DOCS / "reference" / f"{page}.rst").read_text()

    assert sorted(re.findall(r"^\.\. auto(?!module)\w+:: (\w+)", text, re.M)) == sorted(names)
