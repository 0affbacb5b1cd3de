"""`TornadoRequest`: what the session layer needs to know about a Tornado request."""

from __future__ import annotations

from typing import NamedTuple

from tornado.httputil import HTTPServerRequest

from stormcellar.addresses import is_loopback
from stormcellar.sessions.request_info import Client

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class TornadoRequest(NamedTuple):
    """The `RequestInfo` of a handler. Each property is computed only when it is read.

    It holds no handler: a reference cycle would leave every request to the garbage collector.
    """

    request: HTTPServerRequest
    address: str
    """Of the client."""
    is_secure: bool
    """Whether the application is served over TLS."""

    @property
    def client(self) -> Client:
        """The client that sent it."""
        return Client(self.address, self.request.headers.get("User-Agent", ""))

    @property
    def is_safe(self) -> bool:
        """Whether it is GET, HEAD or OPTIONS."""
        return self.request.method in SAFE_METHODS

    @property
    def age_s(self) -> float:
        """How many seconds ago its head arrived."""
        return self.request.request_time()

    @property
    def may_set_cookie(self) -> bool:
        """Whether it came over TLS, or over plain HTTP from this machine to itself."""
        request = self.request
        return self.is_secure or (is_loopback(request.remote_ip or "") and is_loopback(request.host_name))
