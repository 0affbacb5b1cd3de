"""What every response carries, whatever its status and whoever answers: Tornado's own answers included."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform

from stormcellar.app.edge import Edge

# Sources: OWASP HTTP Headers Cheat Sheet; ASVS 5.0, V3.4.
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""The same for every response."""

CACHING = {"Cache-Control": "no-store", "Vary": "Accept, Cookie"}
"""For all but static files."""

FORGET_ALL = '"cache", "cookies", "storage"'
"""The value of Clear-Site-Data at a sign-out."""

FORGET_PAGES = '"cache"'
"""And of what the page after it loads."""


def secured(edge: Edge) -> type[OutputTransform]:
    """Return the transform that puts the headers on each response of an application behind *edge*.

    As the last step before the first byte, so that no handler has to think of it, and none can forget.
    """

    class Secured(OutputTransform):
        def __init__(self, request: HTTPServerRequest) -> None:
            self._request = request

        def transform_first_chunk(
            self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
        ) -> tuple[int, HTTPHeaders, bytes]:
            headers.pop("Server", None)
            for name, value in SECURITY.items():
                headers[name] = value
            if hsts_header := edge.hsts_header(self._request.host):
                headers["Strict-Transport-Security"] = hsts_header
            return status_code, headers, chunk

    return Secured
