"""The headers of every response, including errors and responses that Tornado itself generates."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform

from stormcellar.app.edge import Edge
from stormcellar.web.security_headers import CSP, DEFAULTS, HSTS, headers_transform

SECURITY = {
    **DEFAULTS,
    CSP: (
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Added to every response."""

CACHING = {"Cache-Control": "no-store", "Vary": "Accept, Cookie"}
"""For every response but static files."""

CLEAR = '"cache", "storage"'
"""The value of Clear-Site-Data after a sign-out. `"cookies"` would sign out of sibling subdomains, too."""


def security_transform(edge: Edge) -> type[OutputTransform]:
    """Return the transform that adds the headers to each response of an application behind *edge*.

    No handler can omit or change them.
    """

    def replace(request: HTTPServerRequest, headers: HTTPHeaders) -> None:
        headers.pop("Server", None)
        for name, value in SECURITY.items():
            headers[name] = value
        if hsts := edge.hsts_header(request.host):
            headers[HSTS] = hsts

    return headers_transform(replace)
