"""The plain HTTP port beside TLS: it leads there, and nowhere else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets

from stormcellar.app.edge import Edge
from stormcellar.app.handlers.redirect import make_redirect_app
from stormcellar.app.security_headers import SECURITY
from stormcellar.runtime.connections import Connections
from stormcellar.runtime.http_server import LimitedServer
from tests.support.browser import Browser
from tests.support.certificates import Authority
from tests.support.running import Running, connect
from tests.support.site import raw

HOSTS = ("example.org", "www.example.org")
METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO")


class Plain(NamedTuple):
    browser: Browser
    port: int


@pytest.fixture
def plain(io_loop: IOLoop) -> Iterator[Plain]:
    """The plain port of a site whose TLS is on port 8443."""
    server: HTTPServer = LimitedServer(
        make_redirect_app(Edge(allowed_hosts=HOSTS), 8443), connections=Connections()
    )
    sockets = bind_sockets(0, "127.0.0.1", family=socket.AF_INET)
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    client = AsyncHTTPClient(force_instance=True)
    yield Plain(Browser(client, f"http://127.0.0.1:{port}"), port)
    client.close()
    server.stop()
    io_loop.run_sync(server.close_all_connections)


@pytest.mark.gen_test
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("example.org", "example.org"),
        ("WWW.Example.org.:80", "www.example.org"),
        ("evil.example", "example.org"),
        ("127.0.0.1", "example.org"),
        ("example.org.evil.example", "example.org"),
    ],
)
async def test_reading_leads_to_tls(method: str, host: str, target: str, plain: Plain) -> None:  # F12
    """To the same path and query on a name from the settings, whatever was asked for."""
    response = await plain.browser.fetch(method, "/a/b?c=d&e=%20", headers={"Host": host})

    assert (response.code, response.headers["Location"]) == (301, f"https://{target}:8443/a/b?c=d&e=%20")
    assert response.body == b""


@pytest.mark.gen_test
@pytest.mark.parametrize("method", METHODS)
async def test_nothing_else_is_taken(method: str, plain: Plain) -> None:  # F12
    """What was sent in the clear is not passed on."""
    body = b"password=x" if method in ("POST", "PUT", "PATCH") else None
    response = await plain.browser.fetch(method, "/login", body=body, headers={"Host": "example.org"})

    assert (response.code, response.headers["Allow"]) == (405, "GET, HEAD")
    assert "Location" not in response.headers


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("target", "location"),
    [
        (b"//evil.example/", b"https://example.org:8443//evil.example/"),
        (b"/\\evil.example", b"https://example.org:8443/\\evil.example"),
        (b"/@evil.example", b"https://example.org:8443/@evil.example"),
        (b"/%0d%0aSet-Cookie:%20a=b", b"https://example.org:8443/%0d%0aSet-Cookie:%20a=b"),
        (b"http://evil.example/", None),
        (b"*", None),
        (b"@evil.example", None),
        (b".evil.example", None),
        (b":80@evil.example/", None),
        (b"/\xe2\x80\xa8", None),
        (b"/" + b"a" * 5000, None),
    ],
)
async def test_no_target_leads_elsewhere(target: bytes, location: bytes | None, plain: Plain) -> None:  # F12
    """The path stays a path, or the request is refused."""
    request = b"GET " + target + b" HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"
    head = (await raw(plain.port, request)).partition(b"\r\n\r\n")[0]

    found = [line[10:] for line in head.split(b"\r\n") if line.lower().startswith(b"location: ")]
    assert found == ([] if location is None else [location])
    assert head.split()[1] == (b"400" if location is None else b"301")
    assert b"\r\nset-cookie" not in head.lower()


@pytest.mark.gen_test
async def test_every_answer_carries_its_headers(plain: Plain) -> None:  # F7 F8 F12
    """Those of every response; no cookie, nothing to keep, and no HSTS, which only TLS may say."""
    answers = [
        await plain.browser.fetch(method, "/", headers={"Host": host}, body=None)
        for method in ("GET", "HEAD", "DELETE", "TRACE")
        for host in ("example.org", "evil.example")
    ]

    for answer in answers:
        assert {name: answer.headers[name] for name in SECURITY} == SECURITY
        assert answer.headers["Cache-Control"] == "no-store"
        assert not answer.headers.keys() & {"Server", "Set-Cookie", "Strict-Transport-Security", "Etag"}


@pytest.mark.gen_test
async def test_forwarding_headers_mean_nothing_here(plain: Plain) -> None:  # F12
    """Whoever sends them to the plain port is nobody's proxy."""
    headers = {"Host": "www.example.org", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    response = await plain.browser.fetch("GET", "/", headers=headers)

    assert response.headers["Location"] == "https://www.example.org:8443/"


def answer(base: str, method: str, path: str, host: str, trusted: Path | None = None) -> HTTPResponse:
    """Return the answer to one request."""
    connection = connect(base, trusted)
    try:
        connection.request(method, path, headers={"Host": host})
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def test_both_ports_of_a_running_server(tmp_path: Path) -> None:  # F7 F12
    """The banner names the plain port; it leads to TLS, which tells browsers to stay."""
    files = Authority(tmp_path).issue()
    flags = (
        *files.flags,
        "--http-redirect-port=0",
        "--allowed-hosts=example.org,localhost",
        "--hsts-subdomains",
    )
    with Running(tmp_path, *flags) as server:
        banner = server.line()
        base, plain = (part.rstrip(",") for part in banner.split() if part.startswith("http"))
        moved = answer(plain, "GET", "/login", "example.org")
        there = answer(base, "GET", "/login", "example.org", files.authority)
        here = answer(base, "GET", "/login", "localhost", files.authority)
        status = server.end()

    assert banner == f"Stormcellar on {base}, sessions in memory, {plain} redirects there"
    assert moved.getheader("Location") == f"https://example.org:{base.rpartition(':')[2]}/login"
    assert there.getheader("Strict-Transport-Security") == "max-age=31536000; includeSubDomains"
    assert (there.status, here.status, here.getheader("Strict-Transport-Security")) == (200, 200, None)
    assert status == 0


def test_plain_port_in_use_stops_it(tmp_path: Path) -> None:
    """The line names its own flag."""
    files = Authority(tmp_path).issue()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = (*files.flags, f"--http-redirect-port={port}", "--allowed-hosts=a", "--log-level=error")
        with Running(tmp_path, *flags) as server:
            assert server.process.wait(30) == 2

    assert server.errors().startswith(
        f"stormcellar: --http-redirect-port: cannot listen on 127.0.0.1:{port}: "
    )
