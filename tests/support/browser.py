"""The cookie handling of a browser, with Tornado's HTTP client: it stores cookies and sends them back.

Python's cookie jar does not send Secure cookies over plain HTTP, so a signed-in test would be anonymous. This
class sends every cookie that it holds.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlencode

from tornado.httpclient import AsyncHTTPClient, HTTPResponse

_TOKEN = re.compile(r'name="_xsrf" value="([^"]+)"')


class Browser:
    """Holds cookies for one server at *base* (such as `http://127.0.0.1:1234`)."""

    def __init__(self, client: AsyncHTTPClient, base: str) -> None:
        self.client = client
        self.base = base
        self.cookies: dict[str, str] = {}

    def copy(self) -> Browser:
        """Return a second browser with the current cookies."""
        other = Browser(self.client, self.base)
        other.cookies = dict(self.cookies)
        return other

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
    ) -> HTTPResponse:
        """Send one request and store the cookies of the response; do not follow redirects."""
        sent = dict(headers or {})
        if self.cookies and "Cookie" not in sent:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = await self.client.fetch(
            self.base + path,
            method=method,
            body=body,
            headers=sent,
            follow_redirects=False,
            raise_error=False,
            allow_nonstandard_methods=True,
            request_timeout=30,
        )
        for line in response.headers.get_list("Set-Cookie"):
            self._keep(line)
        return response

    async def get(self, path: str, **headers: str) -> HTTPResponse:
        """GET a page."""
        return await self.fetch("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    async def json(self, method: str, path: str, value: Any = None) -> tuple[int, Any]:
        """Send and accept JSON; return the status and the decoded body (None if it is empty)."""
        body = json.dumps(value).encode() if value is not None else b"{}" if method != "GET" else None
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        response = await self.fetch(method, path, body=body, headers=headers)
        return response.code, json.loads(response.body) if response.body else None

    async def submit(self, form_page: str, action: str, **fields: str) -> HTTPResponse:
        """Open *form_page*, then post *fields* to *action* with the form token of the page."""
        page = await self.get(form_page)
        return await self.post_form(action, token(page), **fields)

    async def post_form(self, action: str, xsrf: str, **fields: str) -> HTTPResponse:
        """Post a form."""
        return await self.fetch(
            "POST",
            action,
            body=urlencode({"_xsrf": xsrf, **fields}),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )

    def _keep(self, line: str) -> None:
        pair, _, attributes = line.partition(";")
        name, _, value = pair.partition("=")
        if "max-age=0" in attributes.lower():
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value


def token(page: HTTPResponse) -> str:
    """Return the form token in *page*."""
    found = _TOKEN.search(page.body.decode())
    assert found is not None, f"no form token in the page ({page.code})"
    return found[1]
