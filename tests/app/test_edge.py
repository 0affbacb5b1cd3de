"""The edge: trusted proxies and their headers, allowed hosts, plain HTTP."""

from __future__ import annotations

import ipaddress

import pytest
from tornado.httpclient import HTTPResponse

from stormcellar.addresses import host_name
from stormcellar.app.edge import Edge
from stormcellar.events import Kind
from tests.support.browser import Browser, token
from tests.support.site import JSON, PASSWORD, OpenSite, Site

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
ELSEWHERE = (ipaddress.ip_network("10.0.0.0/8"),)
BEHIND = Edge(trusted_proxies=LOOPBACK, is_secure=True)
HOSTS = ("example.org", "www.example.org")


async def code(site: Site, path: str = "/login", **headers: str) -> int:
    """Return the status of a GET with *headers*."""
    return (await site.browser().get(path, **headers)).code


# --- names ---


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.org.:8443", "example.org"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:443", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[0:0:0:0:0:0:0:1]:443", "[::1]"),
        ("_my-host", "_my-host"),
        ("xn--exmple-cua.org", "xn--exmple-cua.org"),
        *(
            (each, None)
            for each in ("", ".", "a..b", "-a", "a b", "a/b", "a@b", "a:b", "a:1:2", "::1", "a,b")
        ),
        *((each, None) for each in ("[::1", "[x]", "a\r\nb", "a\x00", "exämple.org", "a.org..", "a" * 64)),
        *((each, None) for each in ("[::1::]", "[127.0.0.1]", "a." * 200)),
    ],
)
def test_a_name_has_one_spelling(host: str, name: str | None) -> None:  # F13
    """Lower case, without port and final dot; what is no host name is none."""
    assert host_name(host) == name


@pytest.mark.gen_test
@pytest.mark.parametrize("host", ["example.org", "EXAMPLE.ORG", "example.org.", "www.example.org:8443"])
async def test_a_name_of_ours_is_served(host: str, open_site: OpenSite) -> None:  # F13
    """However it is spelt, on whatever port."""
    site = open_site(edge=Edge(allowed_hosts=HOSTS))

    assert await code(site, Host=host) == 200


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "example.org.evil.example",
        "xexample.org",
        "127.0.0.1",
        "localhost",
        "org",
        "a b",
        "[::1]",
    ],
)
@pytest.mark.parametrize("path", ["/", "/login", "/session", "/nowhere", "/static/style.css", "/favicon.ico"])
async def test_another_name_is_misdirected(host: str, path: str, open_site: OpenSite) -> None:  # F13
    """421 for everything but health, and no store is asked."""
    site = open_site(edge=Edge(allowed_hosts=HOSTS))
    response = await site.browser().get(path, Host=host, Cookie="id=x", Accept=JSON)

    # Tornado itself refuses what cannot be a Host at all.
    assert response.code == (400 if host == "a b" else 421)
    assert site.store.calls.total() == 0
    assert "Set-Cookie" not in response.headers
    if response.code == 421 and "static" not in path and "favicon" not in path:
        assert b'"misdirected"' in response.body


@pytest.mark.gen_test
async def test_a_post_for_another_name_does_nothing(open_site: OpenSite) -> None:  # F13
    """Not even with a good password and a good token."""
    site = open_site(edge=Edge(allowed_hosts=(*HOSTS, "127.0.0.1")))
    browser = site.browser()
    xsrf = token(await browser.get("/login"))
    body = f"_xsrf={xsrf}&username=alice&password={PASSWORD}"
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Host": "evil.example"}
    response = await browser.fetch("POST", "/login", body=body, headers=headers)
    static = await browser.fetch("POST", "/static/style.css", body=b"", headers={"Host": "evil.example"})

    assert (response.code, static.code) == (421, 421)
    assert await site.records() == []


@pytest.mark.gen_test
async def test_health_is_for_any_name(open_site: OpenSite) -> None:
    """A load balancer asks by address."""
    site = open_site(edge=Edge(trusted_proxies=ELSEWHERE, is_secure=True, allowed_hosts=HOSTS))

    assert [await code(site, path, Host="10.0.0.7") for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.gen_test
async def test_without_a_list_any_name_will_do(open_site: OpenSite) -> None:
    """Behind TLS the certificate, or the proxy, has decided."""
    site = open_site(edge=BEHIND)

    assert await code(site, Host="whatever.example") == 200


@pytest.mark.gen_test
async def test_a_request_without_a_name(open_site: OpenSite) -> None:  # F13
    """HTTP/1.0 can do without Host; it gets no further than another name."""
    site = open_site(edge=Edge(allowed_hosts=HOSTS))

    answer = await site.raw(b"GET /login HTTP/1.0\r\n\r\n")

    assert answer.split()[1] == b"421"


# --- what a proxy says ---


async def post(site: Site, browser: Browser, **headers: str) -> HTTPResponse:
    """Send an unsafe request that changes the session."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    body = b'{"a": 1}'
    return await browser.fetch("PATCH", "/session", body=body, headers={"Content-Type": JSON, **sent})


@pytest.mark.gen_test
async def test_a_proxy_that_rewrites_host_tells_it(open_site: OpenSite) -> None:  # K3
    """Origin is compared with the name that the browser knows, not with the one inside."""
    site = open_site(edge=BEHIND)
    known, inside = "example.org:8443", "10.0.0.7:8888"

    good = await post(site, site.browser(), Origin=f"https://{known}", Host=inside, X_Forwarded_Host=known)
    without = await post(site, site.browser(), Origin=f"https://{known}", Host=inside)
    evil = await post(site, site.browser(), Origin=f"https://{inside}", Host=inside, X_Forwarded_Host=known)

    assert (good.code, without.code, evil.code) == (200, 403, 403)


@pytest.mark.gen_test
async def test_only_a_proxy_tells_the_name(open_site: OpenSite) -> None:  # K3
    """From anybody else X-Forwarded-Host is ignored, for the allowed names and for the comparison alike."""
    site = open_site(edge=Edge(allowed_hosts=HOSTS))

    fooled = await code(site, Host="evil.example", X_Forwarded_Host="example.org")
    kept = await code(site, Host="example.org", X_Forwarded_Host="evil.example")
    crossed = await post(
        site,
        site.browser(),
        Origin="http://evil.example",
        Host="example.org",
        X_Forwarded_Host="evil.example",
    )

    assert (fooled, kept, crossed.code) == (421, 200, 403)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("example.org", 200),
        ("evil.example, example.org", 200),
        ("example.org, evil.example", 421),
        ("example.org,", 200),
        ("", 200),
        ("evil.example", 421),
        ("https://example.org", 421),
        ("example.org/path", 421),
        ("example.org@evil.example", 421),
        ("example.org evil.example", 421),
        ("example.org;evil.example", 421),
    ],
)
async def test_of_several_names_the_nearest_proxys_counts(
    forwarded: str, expected: int, open_site: OpenSite
) -> None:  # K3
    """What stands last was added by the proxy itself; what is no name is not ours, and none is the Host."""
    site = open_site(edge=Edge(trusted_proxies=LOOPBACK, is_secure=True, allowed_hosts=HOSTS))

    assert await code(site, Host="example.org", X_Forwarded_Host=forwarded) == expected


@pytest.mark.gen_test
async def test_two_header_lines_are_one_list(open_site: OpenSite) -> None:  # K3
    """A second line cannot hide behind the first, nor the first behind the second."""
    site = open_site(edge=Edge(trusted_proxies=LOOPBACK, is_secure=True, allowed_hosts=HOSTS))
    start = b"GET /login HTTP/1.1\r\nHost: inside\r\nConnection: close\r\n"
    lines = (b"X-Forwarded-Host: evil.example\r\n", b"X-Forwarded-Host: example.org\r\n")

    good = await site.raw(start + lines[0] + lines[1] + b"\r\n")
    evil = await site.raw(start + lines[1] + lines[0] + b"\r\n")

    assert (good.split()[1], evil.split()[1]) == (b"200", b"421")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        ("https", 200),
        ("HTTPS", 200),
        ("", 200),
        ("http, https", 200),
        ("http", 403),
        ("https, http", 403),
        ("wss", 403),
        ("junk", 403),
    ],
)
async def test_plain_http_at_the_proxy_is_refused(
    proto: str, expected: int, open_site: OpenSite
) -> None:  # K3
    """If the proxy itself was reached without TLS, nobody signs in through it; health is for everybody."""
    site = open_site(edge=BEHIND)
    response = await site.browser().get("/login", X_Forwarded_Proto=proto, Accept=JSON)
    health = await code(site, "/healthz", X_Forwarded_Proto=proto)

    assert (response.code, health) == (expected, 200)
    if expected == 403:
        assert b'"insecure_transport"' in response.body


@pytest.mark.gen_test
async def test_only_a_proxy_tells_the_scheme(open_site: OpenSite) -> None:  # K3
    """From anybody else X-Forwarded-Proto neither opens nor closes a door."""
    direct = open_site()
    past = open_site(edge=Edge(trusted_proxies=ELSEWHERE, is_secure=True))

    assert await code(direct, X_Forwarded_Proto="http") == 200
    assert await code(past, X_Forwarded_Proto="https", X_Forwarded_For="10.0.0.1") == 403


@pytest.mark.gen_test
async def test_with_tls_of_our_own_nobody_needs_the_proxy(open_site: OpenSite) -> None:
    """Whoever comes past it speaks TLS too, and speaks only for themselves."""
    site = open_site(edge=Edge(trusted_proxies=ELSEWHERE, is_secure=True, has_tls=True, allowed_hosts=HOSTS))

    assert await code(site, Host="example.org") == 200
    assert await code(site, Host="evil.example", X_Forwarded_Host="example.org") == 421


@pytest.mark.gen_test
@pytest.mark.parametrize("name", ["Forwarded", "X-Real-Ip", "X-Scheme", "X-Original-Url", "X-Rewrite-Url"])
async def test_other_headers_of_proxies_mean_nothing(name: str, open_site: OpenSite) -> None:  # K3 I5
    """Not even from a trusted one: one way to say a thing is enough."""
    site = open_site(edge=BEHIND)
    value = {"Forwarded": "for=6.6.6.6;host=evil.example;proto=http", "X-Real-Ip": "6.6.6.6"}.get(
        name, "/session"
    )
    response = await site.browser().fetch("GET", "/nowhere", headers={name: value})
    browser = site.browser()
    await post(site, browser, **{name.replace("-", "_"): value})

    [record] = await site.records()
    assert response.code == 404
    assert b"6.6.6.6" not in record.client


@pytest.mark.gen_test
async def test_the_client_behind_a_proxy_is_the_one_recorded(open_site: OpenSite) -> None:  # I5
    """In the session and in the events."""
    site = open_site(edge=BEHIND)
    browser = site.browser()
    headers = {"X_Forwarded_For": "6.6.6.6, 203.0.113.9"}
    await post(site, browser, **headers)
    await post(site, browser, Origin="https://evil.example", **headers)

    [record] = await site.records()
    assert b"203.0.113.9" in record.client
    assert [(e.kind, e.address) for e in site.events if e.kind is Kind.ORIGIN_REJECTED] == [
        (Kind.ORIGIN_REJECTED, "203.0.113.9")
    ]


# --- loopback ---


@pytest.mark.parametrize(
    ("host", "expected"), [("evil.example", 421), ("localhost", 200), ("127.0.0.1", 200)]
)
@pytest.mark.gen_test
async def test_over_plain_http_only_this_machines_names_are_ours(
    host: str, expected: int, open_site: OpenSite
) -> None:  # A5, F13
    """Another name that was made to lead here (DNS rebinding) gets nothing, and no error of ours."""
    site = open_site()
    body, headers = b'{"a": 1}', {"Content-Type": JSON, "Host": host}
    response = await site.browser().fetch("PATCH", "/session", body=body, headers=headers)

    assert response.code == expected
    assert len(await site.records()) == (1 if expected == 200 else 0)


@pytest.mark.parametrize("origin", ["http://[", "http://a]b", "https://ℂ.example／x"])
@pytest.mark.parametrize("path", ["/login", "/logout", "/session", "/nowhere"])
@pytest.mark.gen_test
async def test_an_origin_that_is_no_url_is_refused(origin: str, path: str, open_site: OpenSite) -> None:  # F2
    """It comes from no browser; Tornado's comparison would end in an error of ours."""
    site = open_site()
    raw = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nContent-Type: {JSON}\r\n"
    answer = await site.raw((raw + "Content-Length: 2\r\nConnection: close\r\n\r\n{}").encode())

    assert b"HTTP/1.1 403 " in answer or (path == "/session" and b"HTTP/1.1 405 " in answer)
