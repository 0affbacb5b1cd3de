"""Limits of size, and requests that are no HTTP."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.support.browser import token
from tests.support.site import Site

KIB = 1024
FORM = "application/x-www-form-urlencoded"


def patch_of(size: int) -> bytes:
    """Return a PATCH body of *size* bytes."""
    return b'{"a":"' + b"x" * (size - 8) + b'"}'


@pytest.mark.gen_test
async def test_a_body_of_256_kib_is_answered(site: Site) -> None:
    """It is more than a session holds, and the client is told so."""
    status, body = await site.browser().json("PATCH", "/session", {"a": "x" * (256 * KIB - 9)})

    assert (status, body["error"]["code"]) == (413, "session_too_large")  # H1


@pytest.mark.gen_test
async def test_a_larger_body_is_refused_with_a_reason(site: Site) -> None:
    """One byte more is refused before anybody is asked for, whatever it holds."""
    body = patch_of(256 * KIB + 1)
    headers = {"Content-Type": "application/json"}

    answer = await site.browser().fetch("PATCH", "/session", body=body, headers=headers)

    assert (answer.code, b"session_too_large" in answer.body) == (413, True)  # H1
    assert site.store.calls.total() == 0


@pytest.mark.gen_test
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_huge_body_closes_the_connection(chunked: bool, site: Site) -> None:
    """Beyond 1 MiB it is not read: a bare 400 and the end, announced length or not."""
    body = patch_of(1024 * KIB + 1)
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else b""
    start = b"PATCH /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await site.raw(start + framing + b"\r\n\r\n" + sent)

    assert answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"")  # H1
    assert site.store.calls.total() == 0


@pytest.mark.gen_test
async def test_headers_beyond_16_kib_close_the_connection(site: Site) -> None:
    """Below that they are read, many cookies included; above it nothing is."""
    browser = await site.signed_in()
    cookies = "; ".join([f"c{n}={'x' * 50}" for n in range(200)] + [f"id={browser.cookies['id']}"])
    fits = await browser.get("/session", Cookie=cookies)
    answer = await site.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 17 * KIB + b"\r\n\r\n")

    assert json.loads(fits.body)["user"] == "alice"  # H3
    assert answer in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n")  # H1


BOMBS = {
    "many fields": "&".join(f"a{n}=1" for n in range(20_000)),
    "the same field often": "&".join(["username=alice"] * 10_000),
    "only separators": "&" * 200_000,
    "broken escapes": "username=%zz%&password=%",
    "one long name": "a" * 200_000 + "=1",
}


@pytest.mark.gen_test
@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
async def test_a_form_full_of_nothing_is_refused(body: str, site: Site) -> None:
    """However many fields there are, the answer is a plain refusal and the server goes on."""
    browser = site.browser()
    xsrf = token(await browser.get("/login"))
    response = await browser.fetch(
        "POST", "/login", body=f"_xsrf={xsrf}&{body}", headers={"Content-Type": FORM}
    )

    assert response.code in (400, 401)  # H5
    assert (await browser.get("/healthz")).code == 200


@pytest.mark.gen_test
async def test_a_query_full_of_nothing_is_harmless(site: Site) -> None:
    """Many arguments, and ones that are no text, leave a page as it is or make it a 400."""
    long = await site.browser().get("/login?" + "&".join(f"next=/{n}" for n in range(1000)))
    strange = await site.browser().get("/login?next=%ff%fe")

    assert (long.code, strange.code) == (200, 400)  # H5


@pytest.mark.gen_test
async def test_multipart_bombs_are_refused(site: Site) -> None:
    """Thousands of parts, endless headers, no boundary: 400 or 415, and no part is kept."""
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    bodies = [
        part * 4000 + b"--x--\r\n",
        b"--x\r\n" + b"X: y\r\n" * 30_000 + b"\r\n1\r\n--x--\r\n",
        b"--x" * 80_000,
    ]
    for body in bodies:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await site.browser().fetch("POST", "/login", body=body, headers=headers)

        assert response.code in (400, 415)  # H5


@pytest.mark.gen_test
async def test_what_is_no_http_gets_a_bare_refusal(site: Site) -> None:
    """No page, no Server header, no session; the connection ends."""
    browser = await site.signed_in()
    cookie = browser.cookies["id"].encode()
    site.store.calls.clear()
    for sent in (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: id=" + cookie + b"\x01\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon here\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ):
        answer = await site.raw(sent)

        assert answer.split(b"\r\n\r\n")[1:] in ([], [b""])
        assert b"server:" not in answer.lower()  # F8
        assert b" 200 " not in answer
    assert site.store.calls.total() == 0


@pytest.mark.gen_test
async def test_a_compressed_body_is_not_unpacked(site: Site) -> None:  # H11
    """Whatever its header says, it is read as it came, which is no JSON."""
    body = gzip.compress(b'{"a": 1}')
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    answer = await site.browser().fetch("PATCH", "/session", body=body, headers=headers)

    assert answer.code == 400
    assert await site.records() == []
