"""How browsers reach the server: TLS, trusted proxies, allowed hosts, HSTS."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from stormcellar.addresses import Network, client_address, host_name, is_in, is_loopback
from stormcellar.app import access_log
from stormcellar.app.error_texts import Problem

YEAR_S = 365 * 24 * 3600


@dataclass(frozen=True)
class ReceivedRequest:
    """What one request says about client, host and transport, as far as it is trusted."""

    address: str
    """The client's address: the peer, or what trusted proxies forward."""
    host: str | None
    """The requested host, normalised by `addresses.host_name`; None if it is not a host name."""
    is_insecure: bool
    """Whether the request used plain HTTP, here or at the proxy, although TLS is required."""


@dataclass(frozen=True)
class Edge:
    """The rules for incoming requests.

    Args:
        trusted_proxies: Networks whose X-Forwarded-For, -Host and -Proto headers are used.
        allowed_hosts: Host names, normalised by `addresses.host_name`; empty: any host over TLS, loopback
            hosts over plain HTTP.
        is_secure: Browsers use TLS, to this server or to a proxy.
        has_tls: This server terminates TLS itself, so clients may also connect without the proxy.
        hsts_subdomains: Whether HSTS includes subdomains.
    """

    trusted_proxies: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    is_secure: bool = False
    has_tls: bool = False
    hsts_subdomains: bool = False

    def receive(self, request: HTTPServerRequest) -> ReceivedRequest:
        """Read the headers of a trusted proxy, and replace the Host of *request* by the forwarded one.

        Call it from `initialize`: Tornado compares Origin with Host before any other method of a handler.
        """
        peer, headers = request.remote_ip or "", request.headers
        is_proxied = is_in(peer, self.trusted_proxies)
        if is_proxied and (forwarded := _last(headers.get_list("X-Forwarded-Host"))):
            headers["Host"] = request.host = forwarded
            request.host_name = host_name(forwarded) or ""
        scheme = _last(headers.get_list("X-Forwarded-Proto")) if is_proxied else ""
        return ReceivedRequest(
            address=client_address(peer, headers.get_list("X-Forwarded-For"), self.trusted_proxies),
            host=host_name(request.host),
            is_insecure=self._bypasses_proxy(is_proxied) or scheme.lower() not in ("", "https"),
        )

    def _bypasses_proxy(self, is_proxied: bool) -> bool:
        return bool(self.trusted_proxies) and not is_proxied and not self.has_tls

    def allows_host(self, host: str | None) -> bool:
        """Whether to serve *host*, normalised by `addresses.host_name`.

        Plain HTTP is for loopback, so without a list only loopback names are allowed there. Any other name
        is from a page elsewhere whose name resolves to this machine (DNS rebinding).
        """
        if self.allowed_hosts:
            return host in self.allowed_hosts
        return host is not None and (self.is_secure or is_loopback(host))

    def hsts_header(self, host: str) -> str | None:
        """Return the Strict-Transport-Security header for a response of *host*, a Host header; None: omit it.

        Loopback names get none: a browser would require TLS of every other server on that machine too.
        """
        if not self.is_secure or is_loopback(host):
            return None
        return f"max-age={YEAR_S}" + ("; includeSubDomains" if self.hsts_subdomains else "")


class EdgeHandler(RequestHandler):
    """A handler that applies the rules of an `Edge`. Call `receive` from `initialize`."""

    enforces_edge: ClassVar[bool] = True
    """False for health checks: they may use plain HTTP and any host."""

    edge: Edge
    received: ReceivedRequest

    def receive(self, edge: Edge) -> None:
        """Read the request by the rules of *edge*."""
        self.edge = edge
        self.received = edge.receive(self.request)

    def enforce_edge(self) -> None:
        """Refuse plain HTTP where TLS is required, and hosts that are not allowed.

        Raises:
            Problem: 403 or 421.
        """
        if self.enforces_edge and self.received.is_insecure:
            raise Problem(403, code="insecure_transport")
        if self.enforces_edge and not self.edge.allows_host(self.received.host):
            raise Problem(421)

    def client_address(self) -> str:
        """Return the client's address: the peer, or what trusted proxies forward."""
        return self.received.address

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log without the query string, which Tornado would include."""
        access_log.log_problem(self.request, value)


def _last(values: list[str]) -> str:
    """Return the last element of a list header: only that one was added by the nearest proxy."""
    return values[-1].rpartition(",")[2].strip() if values else ""
