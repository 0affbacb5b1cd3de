"""`Connection`: where the application under test is served, and the HTTP client that asks it."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.netutil import bind_sockets
from tornado.web import Application

ADDRESS = "127.0.0.1"
MOST_REQUESTS = 1000
"""How many requests run at once; Tornado's default of 10 would let races wait for each other."""


class Connection:
    """The way to an application that is served at *base_url*, or by `serve`.

    Args:
        host: The host name that requests show. None: that of *base_url*.
        is_secure: Whether the application counts as served over TLS, by itself or by a proxy.

    Raises:
        ValueError: *base_url* is no URL of a server.
    """

    def __init__(self, base_url: str | None, *, host: str | None, is_secure: bool) -> None:
        if base_url is not None:
            where = urlsplit(base_url)
            if where.scheme not in ("http", "https") or not where.hostname or where.path not in ("", "/"):
                raise ValueError("base_url must be a URL such as 'http://127.0.0.1:8888', without a path")
            base_url = base_url.rstrip("/")
        self._base_url = base_url
        self._host = host
        self._is_secure = is_secure
        self._server: HTTPServer | None = None
        self._client: AsyncHTTPClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    @property
    def base_url(self) -> str:
        """Where the application is served.

        Raises:
            RuntimeError: It is not.
        """
        if self._base_url is None:
            raise RuntimeError("the application is not served: async with Client(app) as client")
        return self._base_url

    @property
    def netloc(self) -> str:
        """The Host header of requests."""
        return self._host or urlsplit(self.base_url).netloc

    @property
    def origin(self) -> str:
        """The Origin header of requests."""
        return f"{'https' if self._is_secure else urlsplit(self.base_url).scheme}://{self.netloc}"

    @property
    def host_name(self) -> str:
        """The host that the cookies belong to."""
        return urlsplit(f"//{self._host or urlsplit(self._base_url or f'//{ADDRESS}').netloc}").hostname or ""

    def serve(self, app: Application) -> bool:
        """Serve *app* on a free port of loopback, unless it is served; return whether it was not."""
        self.require_loop()
        if self._base_url is not None:
            return False
        sockets = bind_sockets(0, ADDRESS, family=socket.AF_INET)
        self._server = HTTPServer(app)
        self._server.add_sockets(sockets)
        self._base_url = f"http://{ADDRESS}:{sockets[0].getsockname()[1]}"
        return True

    def require_loop(self) -> None:
        """Raise RuntimeError if the client is closed, or belongs to another event loop."""
        running = asyncio.get_running_loop()
        if self._is_closed:
            raise RuntimeError("this client is closed")
        if self._loop not in (None, running):
            raise RuntimeError("this client belongs to another event loop: make one for each test")
        self._loop = running

    async def fetch(
        self, method: str, path: str, *, headers: HTTPHeaders, body: bytes | None
    ) -> HTTPResponse:
        """Send one request and return the response, whatever its status."""
        self.require_loop()
        if self._client is None:
            self._client = AsyncHTTPClient(force_instance=True, max_clients=MOST_REQUESTS)
        return await self._client.fetch(
            self.base_url + path,
            method=method,
            headers=headers,
            body=body,
            follow_redirects=False,
            raise_error=False,
            allow_nonstandard_methods=True,
            # The server of a test has a certificate that nobody signed, if any.
            validate_cert=False,
        )

    async def aclose(self) -> None:
        """Close the HTTP client, and stop the server of `serve`. Idempotent."""
        self._is_closed = True
        if self._client is not None:
            self._client.close()
            self._client = None
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            await server.close_all_connections()
