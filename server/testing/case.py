"""`SessionTestCase`: Tornado's `AsyncHTTPTestCase` with a client that keeps cookies."""

from __future__ import annotations

from tornado.testing import AsyncHTTPTestCase

from stormcellar.testing.client import Client


class SessionTestCase(AsyncHTTPTestCase):
    """A test case that serves the application of `get_app`, and asks it as a browser does::

        class AccountTest(SessionTestCase):
            def get_app(self):
                return make_app(make_manager())

            @gen_test
            async def test_account(self):
                await self.client.force_login("alice")
                response = await self.client.get("/account")
                self.assertEqual(response.code, 200)

    Make the application and its session manager anew in `get_app`: the manager is closed after each test.
    `class AccountTest(SessionTestCase, AsyncHTTPSTestCase)` serves it over TLS.
    """

    client: Client
    """A browser without cookies; new for each test."""

    def setUp(self) -> None:  # noqa: D102
        super().setUp()
        try:
            self.client = Client(self._app, self.get_url(""))
        except BaseException:
            super().tearDown()  # unittest calls no tearDown after a setUp that failed
            raise

    def tearDown(self) -> None:  # noqa: D102
        self.io_loop.run_sync(self._close)
        super().tearDown()

    async def _close(self) -> None:
        await self.client.aclose()
        await self.client.sessions.aclose()
