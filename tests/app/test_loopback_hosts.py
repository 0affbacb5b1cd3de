"""Without TLS the server is for this machine alone, by every name that browsers have for it."""

from __future__ import annotations

import pytest

from tests.support.browser import token
from tests.support.site import PASSWORD, OpenSite

FORM = "application/x-www-form-urlencoded"
NAMES = (
    *("localhost", "LOCALHOST", "localhost.", "LocalHost.", "app.localhost", "app.localhost."),
    *("127.0.0.1", "127.0.0.1.", "127.8.9.10", "[::1]", "[0:0:0:0:0:0:0:1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.gen_test
async def test_every_name_of_this_machine_signs_in(name: str, open_site: OpenSite) -> None:  # A5
    """With the Host and the Origin that a browser sends for it."""
    site = open_site()
    browser, host = site.browser(), f"{name}:{site.port}"
    page = await browser.get("/login", Host=host)

    response = await browser.fetch(
        "POST",
        "/login",
        body=f"_xsrf={token(page)}&username=alice&password={PASSWORD}",
        headers={"Host": host, "Origin": f"http://{host}", "Content-Type": FORM},
    )

    assert (page.code, response.code) == (200, 303)
    assert "id" in browser.cookies


@pytest.mark.parametrize(
    "name",
    [
        # A name that resolves to this machine, as in DNS rebinding.
        *("rebound.example", "localhost.example", "127.0.0.1.example", "localhost.example."),
        # Browsers send 127.0.0.1 for these, so no browser sends them.
        *("127.1", "2130706433", "0x7f.1"),
        # Every interface: no address that a client may use (RFC 1122, 3.2.1.3).
        *("0.0.0.0", "[::]"),
    ],
)
@pytest.mark.gen_test
async def test_any_other_name_is_misdirected(name: str, open_site: OpenSite) -> None:  # F13
    """No page and no cookie."""
    site = open_site()

    response = await site.browser().get("/login", Host=f"{name}:{site.port}")

    assert response.code == 421
    assert "Set-Cookie" not in response.headers
