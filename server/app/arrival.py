"""How a request came in, and whether it may go on: the first question of every handler."""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar

from tornado.web import RequestHandler

from stormcellar.app import access_log as logs
from stormcellar.app.edge import Arrival, Front
from stormcellar.app.problems import Problem


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
