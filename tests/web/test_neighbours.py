"""Two servers on one host: browsers send both all cookies, because a port separates none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.testing import bind_unused_port

from tests.support.browser import Browser, token
from tests.support.embedding import Lab


def form(self: Any) -> None:
    """Respond with a form."""
    self.write(self.xsrf_form_html())


async def sign_in(self: Any) -> None:
    """Sign in."""
    await self.session.login("ada")


def shop_or_wiki(name: str) -> Lab:
    """Return an application with a sign-in form, whose cookie is called *name*."""
    lab = Lab(cookie_name=name)
    lab.serve("/", get=form, post=sign_in)
    return lab


@pytest.fixture
def lab(io_loop: IOLoop) -> Iterator[Lab]:
    """The shop, which is what `browser` opens."""
    lab = shop_or_wiki("shop")
    yield lab
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


@pytest.fixture
def wiki(io_loop: IOLoop, browser: Browser) -> Iterator[Browser]:
    """The same browser at the wiki, which is on another port of the host."""
    lab = shop_or_wiki("wiki")
    listening, port = bind_unused_port()
    server = HTTPServer(lab.app)
    server.add_socket(listening)
    elsewhere = Browser(browser.client, f"http://127.0.0.1:{port}")
    elsewhere.cookies = browser.cookies
    yield elsewhere
    server.stop()
    io_loop.run_sync(server.close_all_connections, timeout=10)
    io_loop.run_sync(lab.sessions.aclose, timeout=10)


@pytest.mark.gen_test
async def test_servers_of_one_host_leave_each_others_forms_alone(browser: Browser, wiki: Browser) -> None:
    """Somebody signs in at the shop while a form of the wiki is open; both forms are accepted."""  # A14
    open_form = token(await wiki.get("/"))

    at_the_shop = await browser.submit("/", "/")
    at_the_wiki = await wiki.post_form("/", open_form)

    assert (at_the_shop.code, at_the_wiki.code) == (200, 200)
    assert browser.cookies.keys() == {"shop", "wiki"}
