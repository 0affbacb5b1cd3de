"""`SessionTestCase`: tests of an application with unittest."""

from __future__ import annotations

import unittest

from tornado.testing import AsyncHTTPSTestCase, gen_test
from tornado.web import Application

from stormcellar.testing import SessionTestCase, make_manager
from tests.testing.shop import make_app


class TestShop(SessionTestCase):
    """The shop, over plain HTTP."""

    def get_app(self) -> Application:
        """Return the shop."""
        return make_app(make_manager())

    @gen_test
    async def test_account(self) -> None:
        """The user is signed in."""
        await self.client.force_login("alice")

        assert (await self.client.get("/account")).text == "Hello, alice"

    @gen_test
    async def test_nobody_is_left_from_another_test(self) -> None:
        """Each test has its own application and its own browser."""
        assert await self.client.user() is None
        assert await self.client.sessions_of("alice") == []

    @gen_test
    async def test_socket_is_left_open(self) -> None:
        """What is open at the end of a test is closed with it."""
        await self.client.force_login("alice")
        async with self.client.another() as other:
            await other.force_login("alice")
        await self.client.websocket_connect("/room").__aenter__()
        assert len(self.client.sessions.watch)


class TestShopOverTLS(TestShop, AsyncHTTPSTestCase):
    """The same with a certificate that nobody signed."""

    def get_app(self) -> Application:
        """Return the shop."""
        return make_app(make_manager(secure=True))

    @gen_test
    async def test_everything_is_over_tls(self) -> None:
        """Pages, sockets and streams."""
        await self.client.force_login("alice")
        page = await self.client.post("/", {})
        async with (
            self.client.websocket_connect("/room") as socket,
            self.client.event_stream("/feed") as events,
        ):
            await socket.write_message("hello")
            answer, event = await socket.read_message(), await events.next()

        assert page.json()["origin"].startswith("https://127.0.0.1:")
        assert list(self.client.cookies) == ["__Host-id"]
        assert answer == "alice: hello"
        assert event is not None


def test_application_that_is_used_twice() -> None:
    """The second test says that its manager was closed, and leaves nothing open."""
    app = make_app(make_manager())

    class Twice(SessionTestCase):
        def get_app(self) -> Application:
            return app

        @gen_test
        async def test_first(self) -> None:
            await self.client.get("/")

        test_second = test_first

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Twice).run(result)

    assert (result.testsRun, len(result.errors)) == (2, 1)
    assert "make the application and its manager anew for each test" in result.errors[0][1]
