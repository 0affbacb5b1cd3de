"""`add_security_headers`, and the reports that browsers send about what a policy forbids."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.support.wait import WebDriverWait
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import AsyncHTTPTestCase, bind_unused_port
from tornado.web import Application, HTTPError, RequestHandler

from stormcellar import SessionManager, SessionMixin, add_security_headers, session_settings
from stormcellar.stores.memory import MemoryStore
from stormcellar.web.csp_reports import MAX_BYTES, MOST_A_MINUTE, ReportLog
from stormcellar.web.security_headers import CSP, DEFAULTS, REPORT_ONLY
from tests.support.chromium import WAIT_S, Chromium
from tests.support.core import KEY

REPORT = {
    "csp-report": {
        "document-uri": "https://ada:secret@shop.example/cart?token=secret#part",
        "blocked-uri": "https://evil.example/x.js?secret",
        "violated-directive": "script-src",
    }
}


class Page(SessionMixin, RequestHandler):
    """A page with an inline script, which the default policy forbids."""

    def get(self) -> None:
        """Show it, with a header of its own."""
        if self.get_query_argument("fail", ""):
            raise HTTPError(500)
        self.set_header("X-Frame-Options", "SAMEORIGIN")
        self.write("<h1>Hello</h1><script>document.title = 'ran'</script>")


def make_app(*args: Any, **kwargs: Any) -> Application:
    """Return an application with the headers."""
    sessions = SessionManager(MemoryStore(), secrets=[KEY])
    app = Application([("/", Page)], static_path=str(Path(__file__).parent), **session_settings(sessions))
    add_security_headers(app, *args, **kwargs)
    return app


class Defaults(AsyncHTTPTestCase):
    """Nothing was said but where reports go."""

    def get_app(self) -> Application:
        """Return the application."""
        return make_app(hsts_s=600, report_path="/reports")

    def test_every_response_has_them(self) -> None:
        """Pages, errors, static files and unknown addresses; a handler's own header stays."""
        for path in ("/", "/?fail=1", "/nowhere", "/static/conftest.py"):
            headers = self.fetch(path).headers
            for name in DEFAULTS.keys() - {CSP, "X-Frame-Options"}:
                assert headers.get_list(name) == [DEFAULTS[name]], (path, name)
            assert headers[CSP] == f"{DEFAULTS[CSP]}; report-uri /reports"
            assert "Server" not in headers
            assert headers.get_list("X-Frame-Options") == ["SAMEORIGIN" if path == "/" else "DENY"]

    def test_hsts_is_for_tls(self) -> None:
        """It is not sent over plain HTTP, where browsers would ignore it."""
        assert "Strict-Transport-Security" not in self.fetch("/").headers

    def report(self, body: bytes | str, kind: str = "application/csp-report", **headers: str) -> int:
        """Send a report, and return the status."""
        headers = {"Content-Type": kind, **headers}
        return self.fetch("/reports", method="POST", body=body, headers=headers).code

    def test_reports_are_logged_without_what_may_be_secret(self) -> None:
        """Both forms of a report are a line each."""
        newer = {
            "type": "csp-violation",
            "body": {
                "documentURL": "https://a.example/",
                "blockedURL": "inline",
                "effectiveDirective": "x\nY",
            },
        }
        with self.assertLogs("stormcellar.csp") as logs:
            assert self.report(json.dumps(REPORT)) == 204
            sent = json.dumps([newer, {"type": "deprecation"}])
            assert self.report(sent, "application/reports+json; charset=utf-8") == 204
        assert [record.getMessage() for record in logs.records] == [
            "the page https://shop.example/cart may not use https://evil.example/x.js (script-src)",
            "the page https://a.example/ may not use inline (x?Y)",
        ]

    def test_bad_reports_are_refused(self) -> None:
        """Whatever is sent, nothing fails and nothing is logged."""
        with self.assertNoLogs("stormcellar.csp"):
            for body in ("", "x", "1", '"x"', "[1]", '{"csp-report": 1}', "[[]]", "[" * 60_000):
                assert self.report(body) == 400, body
            assert self.report('[{"type": "csp-violation"}]') == 400
            assert self.report('{"csp-report": {"document-uri": "http://["}}') == 400
            assert self.report("{}", "text/plain") == 415
            assert self.report("x" * (MAX_BYTES + 1)) == 413
        assert self.fetch("/reports").code == 405

    def test_a_body_of_unknown_length_is_bounded(self) -> None:
        """It is cut off where it exceeds the limit."""

        async def chunks(write: Any) -> None:
            for _ in range(MAX_BYTES // 1024 + 2):
                await write(b"x" * 1024)

        request = HTTPRequest(
            self.get_url("/reports"),
            method="POST",
            body_producer=chunks,
            headers={"Content-Type": "application/csp-report"},
        )
        response = self.io_loop.run_sync(lambda: self.http_client.fetch(request, raise_error=False))
        assert response.code == 413


class Chosen(AsyncHTTPTestCase):
    """Some headers were chosen."""

    def get_app(self) -> Application:
        """Return the application."""
        chosen = {CSP: None, REPORT_ONLY: "default-src 'none'", "X-Frame-Options": None, "X-Own": "1"}
        return make_app(chosen, hsts_s=600, report_path="/reports")

    def get_httpserver_options(self) -> dict[str, Any]:
        """Trust the proxy that speaks TLS."""
        return {"xheaders": True}

    def test_values_can_be_replaced_and_left_out(self) -> None:
        """None leaves a header out; another policy gets the address of the reports as well."""
        headers = self.fetch("/nowhere", headers={"X-Forwarded-Proto": "https"}).headers
        assert headers[REPORT_ONLY] == "default-src 'none'; report-uri /reports"
        assert (headers["X-Own"], headers["Strict-Transport-Security"]) == ("1", "max-age=600")
        assert not {CSP, "X-Frame-Options"} & {*headers}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hsts_s": -1}, "hsts_s must be at least 0"),
        ({"report_path": "reports"}, "report_path must begin with a slash"),
        ({"headers": {"X-A": "1\r\nSet-Cookie: a=b"}}, "must not contain a line break"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str) -> None:
    """The error comes at the start, not with the first response."""
    with pytest.raises(ValueError, match=message):
        add_security_headers(Application(), **wrong)


def test_a_flood_of_reports_writes_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Those beyond the limit are counted."""
    now_s = 0.0
    reports = ReportLog(clock=lambda: now_s)
    for _ in range(MOST_A_MINUTE + 5):
        reports.write("x")
    now_s = 60.0
    reports.write("y")

    assert [record.getMessage() for record in caplog.records] == [
        *["x"] * MOST_A_MINUTE,
        "5 reports were left out",
        "y",
    ]


@pytest.mark.gen_test(timeout=60)
async def test_a_browser_reports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Chromium does not run the inline script, and says so."""
    listening, port = bind_unused_port()
    server = HTTPServer(make_app(report_path="/reports"))
    server.add_socket(listening)

    def reports() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.name == "stormcellar.csp"]

    def browse() -> str:
        with Chromium(tmp_path, f"http://127.0.0.1:{port}") as browser:
            browser.open("/")
            WebDriverWait(browser.driver, WAIT_S).until(lambda _: reports())
            return str(browser.driver.title)

    try:
        assert await asyncio.to_thread(browse) != "ran"
    finally:
        server.stop()

    assert reports() == [f"the page http://127.0.0.1:{port}/ may not use inline (script-src-elem)"]
