"""The headers of every response, including errors and responses that Tornado itself generates."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform

from stormcellar.app.edge import Edge

# Sources: OWASP HTTP Headers Cheat Sheet; ASVS 5.0, V3.4.
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Added to every response."""

CACHING = {"Cache-Control": "no-store", "Vary": "Accept, Cookie"}
"""For every response but static files."""

CLEAR = '"cache", "storage"'
"""The value of Clear-Site-Data after a sign-out. `"cookies"` would sign out of sibling subdomains, too."""


def security_transform(edge: Edge) -> type[OutputTransform]:
    """Return the transform that adds the headers to each response of an application behind *edge*.

    It runs right before the first byte is sent, so no handler can omit the headers.
    """

    class SecurityHeaders(OutputTransform):
        def __init__(self, request: HTTPServerRequest) -> None:
            self._request = request

        def transform_first_chunk(
            self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
        ) -> tuple[int, HTTPHeaders, bytes]:
            headers.pop("Server", None)
            for name, value in SECURITY.items():
                headers[name] = value
            if hsts := edge.hsts_header(self._request.host):
                headers["Strict-Transport-Security"] = hsts
            return status_code, headers, chunk

    return SecurityHeaders
