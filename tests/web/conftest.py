"""What tests of an embedding application share; each names its own `lab`."""

from __future__ import annotations

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application

from stormcellar.testing.fixtures import client
from tests.support.browser import Browser
from tests.support.embedding import Lab

__all__ = ["client"]


@pytest.fixture
def app(lab: Lab) -> Application:
    """What the server serves."""
    return lab.app


@pytest.fixture
def browser(http_client: AsyncHTTPClient, http_port: int) -> Browser:
    """A browser that holds no cookie yet."""
    return Browser(http_client, f"http://127.0.0.1:{http_port}")
