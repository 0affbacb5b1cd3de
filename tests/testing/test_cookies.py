"""`CookieJar`: cookies as browsers keep them."""

from __future__ import annotations

import pytest

from stormcellar.testing import CookieJar, CookieRefused
from tests.support.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    """The time of the jar."""
    return Clock()


@pytest.fixture
def jar(clock: Clock) -> CookieJar:
    """An empty jar for shop.example.org."""
    return CookieJar("shop.example.org", lambda: int(clock() * 1000))


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/", "root=1"),
        ("/shop", "shop=2; here=3; root=1"),
        ("/shop/", "shop=2; here=3; root=1"),
        ("/shop/cart", "shop=2; here=3; root=1"),
        ("/shopping", "root=1"),
    ],
)
def test_path(jar: CookieJar, path: str, sent: str) -> None:
    """A cookie is sent to its path and below, that of the longer path first."""
    jar.store("root=1; Path=/")
    jar.store("shop=2; path=/shop")
    jar.store("here=3; Path=nonsense", path="/shop/cart")

    assert jar.header(path) == sent


def test_secure_cookie_is_sent(jar: CookieJar) -> None:
    """Secure and the prefix __Host- are no reason to leave a cookie out."""
    jar.store("__Host-id=a=b; Secure; HttpOnly; Path=/; SameSite=Lax")

    assert jar.header("/x") == "__Host-id=a=b"
    assert jar["__Host-id"] == "a=b"


def test_max_age_and_expires(jar: CookieJar, clock: Clock) -> None:
    """A cookie ends by its Max-Age, which wins over Expires, by the clock of the manager."""
    jar.store("a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
    jar.store("b=1; Expires=Sun, 17 Mar 2030 17:47:40 GMT")
    jar.store("c=1; Max-Age=soon; Expires=whenever")
    clock.advance(59)
    present = dict(jar)
    clock.advance(1)

    assert present == {"a": "1", "b": "1", "c": "1"}
    assert list(jar) == ["c"]
    assert (jar.header(), len(jar)) == ("c=1", 1)


def test_cookie_is_replaced_and_deleted(jar: CookieJar) -> None:
    """By another one of the same name, domain and path alone."""
    for line in ("a=1; Path=/", "a=2; Path=/x", "a=3; Domain=.Example.org; Path=/", "a=4; Path=/"):
        jar.store(line)
    several = jar.header("/x")
    jar.store("a=; Max-Age=0; Path=/x")
    jar.store("a=; Max-Age=0; Path=/; Domain=example.org")

    assert several == "a=2; a=4; a=3"
    assert jar.header("/x") == "a=4"


def test_browser_closes(jar: CookieJar) -> None:
    """What has neither Max-Age nor Expires is dropped."""
    jar.store("a=1")
    jar.store("b=1; Max-Age=60")

    jar.close_browser()

    assert dict(jar) == {"b": "1"}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("=secret", "it has no name"),
        ("a=secret; Domain=other.example", "Domain is other.example"),
        ("a=secret; Domain=ple.org", "Domain is ple.org"),
        ("__Host-a=secret; Path=/", "needs Secure"),
        ("__host-a=secret; Secure; Path=/; Domain=shop.example.org", "no Domain"),
        ("__Host-a=secret; Secure", "needs Path=/"),
        ("__Secure-a=secret; Path=/", "needs Secure"),
        ("a=secret; SameSite=None", "SameSite=None needs Secure"),
        ("a=secret; Partitioned", "Partitioned needs Secure"),
        ("a=secret" + 4096 * "x", "longer than 4096 bytes"),
    ],
)
def test_what_browsers_refuse(jar: CookieJar, line: str, fault: str) -> None:
    """The error says why, and shows no value; what was there stays."""
    jar["a"] = "before"

    with pytest.raises(CookieRefused, match=fault) as caught:
        jar.store(line)

    assert dict(jar) == {"a": "before"}
    assert "secret" not in str(caught.value)


def test_mapping(jar: CookieJar) -> None:
    """A test reads, sets and deletes cookies by name, and sees no value by accident."""
    jar["theme"] = "dark"
    jar.store("id=secret; Path=/x")

    assert (dict(jar), "theme" in jar, "x" in jar) == ({"theme": "dark", "id": "secret"}, True, False)
    assert repr(jar) == "<CookieJar theme, id>"
    del jar["id"]
    assert (list(jar), jar.header("/x")) == (["theme"], "theme=dark")
    with pytest.raises(KeyError):
        del jar["id"]
    for name, value in (("", "x"), ("a=b", "x"), ("a", "x; y"), ("a\r\n", "x")):
        with pytest.raises(ValueError, match="neither ';' nor control characters"):
            jar[name] = value
