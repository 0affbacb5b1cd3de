"""The plain HTTP port: redirect to TLS, and nothing else."""

from __future__ import annotations

import re
from typing import Any

from tornado.web import Application

from stormcellar.app import access_log
from stormcellar.app.edge import Edge, EdgeHandler
from stormcellar.app.error_texts import Problem, describe
from stormcellar.app.security_headers import CACHING, security_transform

_TARGET = re.compile(r"/[!-~]{0,4096}")


def make_redirect_app(edge: Edge, tls_port: int) -> Application:
    """Return the application of the plain HTTP port.

    Args:
        edge: Of the plain port: not secure, so it sends no HSTS. A client that asks for a host that is not
            allowed is redirected to the first allowed one.
    """
    given = {"edge": edge, "tls_port": tls_port}
    app = Application([("(.*)", Redirect, given)], log_function=access_log.log_request)
    app.add_transform(security_transform(edge))
    return app


class Redirect(EdgeHandler):
    """Handler for every path."""

    tls_port: int

    def initialize(self, edge: Edge, tls_port: int) -> None:
        """Take the rules of the plain port, and the port to redirect to."""
        self.receive(edge)
        self.tls_port = tls_port

    def set_default_headers(self) -> None:
        """Forbid caching: port and host may change."""
        for name, value in CACHING.items():
            self.set_header(name, value)

    def compute_etag(self) -> str | None:
        """Return None: responses are not cached, so there is nothing to compare."""
        return None

    def get(self, *_: str) -> None:
        """Redirect to the same address over TLS."""
        target = self.request.uri or ""
        if not _TARGET.fullmatch(target):
            raise Problem(400)
        # The host of the request is used only if it equals one from the settings.
        host = (
            self.received.host
            if self.received.host in self.edge.allowed_hosts
            else self.edge.allowed_hosts[0]
        )
        port = "" if self.tls_port == 443 else f":{self.tls_port}"
        self.redirect(f"https://{host}{port}{target}", permanent=True)

    head = get

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with a line of text."""
        if status_code == 405:
            self.set_header("Allow", "GET, HEAD")
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(describe(status_code, kwargs["exc_info"][1] if "exc_info" in kwargs else None)[1] + "\n")
