"""The front of the server: TLS or not, the proxies that are believed, the names it answers to."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from stormcellar.addresses import Network, client_address, host_name, is_in, is_loopback
from stormcellar.app import access_log as logs
from stormcellar.app.problems import Problem

YEAR_S = 365 * 24 * 3600


@dataclass(frozen=True)
class Arrival:
    """How one request reached the server."""

    address: str
    """Of the client, as far as trusted proxies vouch for it."""
    host: str | None
    """The name it was sent to, in one spelling; None if that is no name."""
    is_insecure: bool
    """Whether it came, or says its proxy, over plain HTTP where TLS is the rule."""


@dataclass(frozen=True)
class Front:
    """How browsers reach this server.

    Args:
        proxies: Networks whose word counts: X-Forwarded-For, X-Forwarded-Host and X-Forwarded-Proto.
        hosts: Host names as `network.host_name` writes them; empty: any.
        is_secure: Browsers speak TLS, to us or to a proxy.
        has_tls: We speak it ourselves, so that who comes past the proxies is no worse off.
        hsts_subdomains: What is told to browsers holds for subdomains too.
    """

    proxies: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    is_secure: bool = False
    has_tls: bool = False
    hsts_subdomains: bool = False

    def receive(self, request: HTTPServerRequest) -> Arrival:
        """Say how *request* came, and let its Host be what the browser sent, also where a proxy rewrote it.

        Tornado compares Origin with Host before any handler's own code runs, so this must come first: from
        `initialize`.
        """
        peer, headers = request.remote_ip or "", request.headers
        is_proxied = is_in(peer, self.proxies)
        if is_proxied and (forwarded := _last(headers.get_list("X-Forwarded-Host"))):
            headers["Host"] = request.host = forwarded
            request.host_name = host_name(forwarded) or ""
        scheme = _last(headers.get_list("X-Forwarded-Proto")) if is_proxied else ""
        return Arrival(
            address=client_address(peer, headers.get_list("X-Forwarded-For"), self.proxies),
            host=host_name(request.host),
            is_insecure=self._is_past_the_proxy(is_proxied) or scheme.lower() not in ("", "https"),
        )

    def _is_past_the_proxy(self, is_proxied: bool) -> bool:
        return bool(self.proxies) and not is_proxied and not self.has_tls

    def answers_to(self, host: str | None) -> bool:
        """Whether *host*, as `network.host_name` writes it, is ours; None never is.

        Over plain HTTP, which is for loopback, those of this machine are, unless others are given: another
        one comes from a page elsewhere whose name was made to lead here (DNS rebinding).
        """
        if self.hosts:
            return host in self.hosts
        return host is not None and (self.is_secure or is_loopback(host))

    def strict_transport(self, host: str) -> str | None:
        """Return the Strict-Transport-Security header for a response of *host*, a Host header; None: none.

        Not for this machine's own names: a browser would hold every other server on it to TLS as well.
        """
        if not self.is_secure or is_loopback(host_name(host) or ""):
            return None
        return f"max-age={YEAR_S}" + ("; includeSubDomains" if self.hsts_subdomains else "")


class Arriving(RequestHandler):
    """A handler that knows how its request came; call `arrive` from `initialize`."""

    through_front: ClassVar[bool] = True
    """Whether this is only for requests that came as browsers do: over TLS, to a name of ours."""

    front: Front
    arrival: Arrival

    def arrive(self, front: Front) -> None:
        """Look at the request, before Tornado compares its Origin with its Host."""
        self.front = front
        self.arrival = front.receive(self.request)

    def require_arrival(self) -> None:
        """Refuse what came past the proxy, over plain HTTP, or to a name that is not ours."""
        if self.through_front and self.arrival.is_insecure:
            raise Problem(403, code="insecure_transport")
        if self.through_front and not self.front.answers_to(self.arrival.host):
            raise Problem(421)

    def client_address(self) -> str:
        """Return the peer, or the client that the trusted proxies in front say they speak for."""
        return self.arrival.address

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log without the query string, which Tornado would include."""
        logs.log_problem(self.request, value)


def _last(values: list[str]) -> str:
    """Return the last element of a list header: what the nearest proxy itself added, whatever it was sent."""
    return values[-1].rpartition(",")[2].strip() if values else ""
