"""`add_security_headers`: headers for every response of an application, error pages and static files too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import Application, OutputTransform

from stormcellar.web.csp_reports import CspReports, ReportLog

CSP = "Content-Security-Policy"
REPORT_ONLY = "Content-Security-Policy-Report-Only"
HSTS = "Strict-Transport-Security"

# Sources: OWASP HTTP Headers Cheat Sheet; ASVS 5.0, V3.4.
DEFAULTS: Mapping[str, str] = {
    CSP: (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""The headers that `add_security_headers` sets unless told otherwise."""


def add_security_headers(
    app: Application,
    headers: Mapping[str, str | None] | None = None,
    *,
    hsts_s: int | None = None,
    report_path: str | None = None,
) -> None:
    """Add security headers to every response of *app*, and remove Tornado's `Server` header.

    A header that a handler sets itself stays as it is. A WebSocket handshake is not changed.

    Args:
        headers: Values in place of `DEFAULTS`, or in addition; None leaves a header out.
        hsts_s: The `max-age` of `Strict-Transport-Security`, in seconds, for responses over TLS. None: no
            such header.
        report_path: A path of this application, such as `/csp-reports`. Browsers send what the content
            security policies forbid there, and each report is a line in the log `stormcellar.csp`.

    Raises:
        ValueError: A value contains a line break, *hsts_s* is negative, or *report_path* is no path.
    """
    values = {name: value for name, value in {**DEFAULTS, **(headers or {})}.items() if value is not None}
    if hsts_s is not None and hsts_s < 0:
        raise ValueError(f"hsts_s must be at least 0, not {hsts_s!r}")
    if report_path is not None:
        if not report_path.startswith("/"):
            raise ValueError(f"report_path must begin with a slash, not {report_path!r}")
        # Not `report-to`: a browser that knows it ignores `report-uri`, and reports up to a minute later.
        for name in {CSP, REPORT_ONLY} & values.keys():
            values[name] += f"; report-uri {report_path}"
        app.add_handlers(".*", [(report_path, CspReports, {"reports": ReportLog()})])
    for name, value in values.items():
        if set("\r\n\0") & set(name + value):
            raise ValueError(f"the value of {name!r} must not contain a line break")

    def add(request: HTTPServerRequest, headers: HTTPHeaders) -> None:
        if headers.get("Server", "").startswith("TornadoServer/"):
            del headers["Server"]
        for name, value in values.items():
            headers.setdefault(name, value)
        if hsts_s is not None and request.protocol == "https":
            headers.setdefault(HSTS, f"max-age={hsts_s}")

    app.add_transform(headers_transform(add))


def headers_transform(change: Callable[[HTTPServerRequest, HTTPHeaders], None]) -> type[OutputTransform]:
    """Return the transform that has *change* change the headers of each response.

    It runs right before the first byte is sent, so after every handler.
    """

    class HeadersTransform(OutputTransform):
        def __init__(self, request: HTTPServerRequest) -> None:
            self._request = request

        def transform_first_chunk(
            self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
        ) -> tuple[int, HTTPHeaders, bytes]:
            change(self._request, headers)
            return status_code, headers, chunk

    return HeadersTransform
