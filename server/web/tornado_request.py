"""`Incoming`: what the session layer asks of a Tornado request, looked up only when it is asked."""

from __future__ import annotations

from tornado.httputil import HTTPServerRequest

from stormcellar.addresses import is_loopback
from stormcellar.sessions.request_info import Client

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Incoming:
    """The `stormcellar.sessions.request_info.Requesting` of a handler.

    Holds no handler: that holds the session that holds this, and a circle is left to the garbage collector.

    Args:
        address: Of the client.
        is_secure: The application is served over TLS.
    """

    __slots__ = ("_address", "_is_secure", "_request")

    def __init__(self, request: HTTPServerRequest, address: str, is_secure: bool) -> None:
        self._request = request
        self._address = address
        self._is_secure = is_secure

    @property
    def client(self) -> Client:
        """Who sent it."""
        return Client(self._address, self._request.headers.get("User-Agent", ""))

    @property
    def is_safe(self) -> bool:
        """Whether it is GET, HEAD or OPTIONS."""
        return self._request.method in SAFE_METHODS

    @property
    def may_set_cookie(self) -> bool:
        """Over plain HTTP only between this machine and itself."""
        request = self._request
        return self._is_secure or (is_loopback(request.remote_ip or "") and is_loopback(request.host_name))
