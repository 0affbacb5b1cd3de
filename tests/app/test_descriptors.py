"""A process that has no free file descriptor still shows its pages."""

from __future__ import annotations

import builtins
import errno
import os
from typing import Any

import pytest
from tornado.web import RequestHandler, StaticFileHandler

from tests.support.site import OpenSite


@pytest.mark.gen_test
async def test_pages_and_their_files_are_read_at_the_start(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request opens a template, a style sheet or an icon, not even the first one."""
    monkeypatch.setattr(RequestHandler, "_template_loaders", {})
    monkeypatch.setattr(StaticFileHandler, "_static_hashes", {})
    browser = open_site().browser()

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr("io.open", refuse)
    paths = ("/", "/login", "/signed-out", "/nowhere", "/static/style.css", "/static/icon.svg")
    answers = [await browser.get(path) for path in paths]
    monkeypatch.undo()

    assert [answer.code for answer in answers] == [200, 200, 200, 404, 200, 200]
    assert "style.css?v=" in answers[1].body.decode()


@pytest.mark.gen_test
async def test_part_of_a_file(open_site: OpenSite) -> None:
    """Ranges and lengths are those of the content that was read."""
    browser = open_site().browser()
    whole = await browser.get("/static/style.css")
    part = await browser.get("/static/style.css", Range="bytes=3-9")

    assert (part.code, part.body) == (206, whole.body[3:10])
    assert whole.headers["Content-Length"] == str(len(whole.body))
