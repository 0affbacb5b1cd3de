"""Fixtures for pytest, on those of pytest-tornado.

In the `conftest.py` of your tests::

    pytest_plugins = ["stormcellar.testing.fixtures"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from stormcellar.testing.client import Client


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A browser without cookies, for the application of the fixture `app`, which you write.

    Make the application and its session manager anew in `app`: the manager is closed after each test.
    """
    if not request.config.pluginmanager.hasplugin("tornado"):
        pytest.fail("the fixture `client` needs pytest-tornado; or use `async with Client(app) as client`")
    io_loop: IOLoop = request.getfixturevalue("io_loop")
    request.getfixturevalue("http_server")
    app = request.getfixturevalue(request.config.getoption("app_fixture"))
    client = Client(app, request.getfixturevalue("base_url"))
    yield client
    io_loop.run_sync(client.aclose)
    io_loop.run_sync(client.sessions.aclose)
