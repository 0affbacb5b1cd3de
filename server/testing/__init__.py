"""Tests of your own application: a client that is signed in without a password, a clock, a store that fails.

::

    async with Client(make_app(make_manager())) as client:
        await client.force_login("alice")
        response = await client.get("/account")
        assert response.code == 200

`SessionTestCase` is for unittest; `stormcellar.testing.fixtures` has the fixture `client` for pytest.
"""

from stormcellar.testing.case import SessionTestCase
from stormcellar.testing.client import Client
from stormcellar.testing.clock import Clock
from stormcellar.testing.cookies import CookieJar, CookieRefused, CookieRefusedWarning
from stormcellar.testing.faulty_store import FaultyStore
from stormcellar.testing.managers import make_manager
from stormcellar.testing.response import Response
from stormcellar.testing.stream import EventStream, ServerEvent
from stormcellar.testing.websocket import Closed, SocketClosed, WebSocket

__all__ = [
    "Client",
    "Clock",
    "Closed",
    "CookieJar",
    "CookieRefused",
    "CookieRefusedWarning",
    "EventStream",
    "FaultyStore",
    "Response",
    "ServerEvent",
    "SessionTestCase",
    "SocketClosed",
    "WebSocket",
    "make_manager",
]
