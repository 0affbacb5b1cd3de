"""The shop, and the public fixture `client`."""

from __future__ import annotations

import pytest
from tornado.web import Application

from stormcellar import Lifetime, SessionManager
from stormcellar.testing import make_manager
from stormcellar.testing.fixtures import client
from tests.testing.shop import make_app

__all__ = ["client"]


@pytest.fixture
def sessions() -> SessionManager:
    """A manager of a test, which keeps users signed in for a week if they ask."""
    return make_manager(lifetime=Lifetime(remember_s=7 * 86_400))


@pytest.fixture
def app(sessions: SessionManager) -> Application:
    """The shop."""
    return make_app(sessions)
