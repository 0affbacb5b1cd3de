"""The attributes of the cookies, byte for byte, and the combinations that are refused."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from stormcellar import SessionManager
from stormcellar.sessions.cookie_attributes import CookieAttributes, NeedsSecure, parse_cookie_domain
from stormcellar.sessions.cookies import SessionId, mint_device_token, mint_secret
from stormcellar.stores.memory import MemoryStore
from tests.support.cookie_samples import Response, cookies, written
from tests.support.core import KEY

EVERYTHING: dict[str, Any] = {
    "secure": True,
    "samesite": "None",
    "domain": "example.org",
    "partitioned": True,
    "priority": "High",
}
GONE = "expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; "


def set_and_deleted(**attributes: Any) -> Response:
    """Return the lines that set each of our cookies, and that delete those that are ever deleted."""
    jar, response = cookies(**attributes), Response()
    jar.write(response, SessionId.mint())
    jar.write_nonce(response, mint_secret())
    jar.write_device(response, mint_device_token(), max_age_s=60)
    jar.clear(response)
    jar.clear_nonce(response)
    return response


@pytest.mark.parametrize(
    ("attributes", "name", "text"),
    [
        ({}, "id", "HttpOnly; Path=/; SameSite=Lax"),
        ({"samesite": "Strict"}, "id", "HttpOnly; Path=/; SameSite=Strict"),
        ({"priority": "high"}, "id", "HttpOnly; Path=/; SameSite=Lax; Priority=High"),
        ({"secure": True}, "__Host-id", "HttpOnly; Path=/; SameSite=Lax; Secure"),
        ({"secure": True, "samesite": "none"}, "__Host-id", "HttpOnly; Path=/; SameSite=None; Secure"),
        (
            {"secure": True, "samesite": "None", "partitioned": True},
            "__Host-id-partitioned",
            "HttpOnly; Path=/; SameSite=None; Secure; Partitioned",
        ),
        (
            {"secure": True, "domain": "Example.ORG"},
            "__Secure-id",
            "HttpOnly; Path=/; SameSite=Lax; Secure; Domain=example.org",
        ),
        (
            EVERYTHING,
            "__Secure-id-partitioned",
            "HttpOnly; Path=/; SameSite=None; Secure; Domain=example.org; Partitioned; Priority=High",
        ),
    ],
    ids=str,
)
def test_every_line_byte_for_byte(attributes: dict[str, Any], name: str, text: str) -> None:  # A4, A6, F15
    """A deletion has the attributes of the cookie that it deletes, or browsers keep the cookie."""
    *lines, gone, nonce_gone = set_and_deleted(**attributes)

    assert [line.partition("=")[0] for line in lines] == [name, f"{name}-form", f"{name}-device"]
    assert [line.partition("; ")[2] for line in lines] == [text, text, f"Max-Age=60; {text}"]
    assert [gone, nonce_gone] == [f"{name}=; {GONE}{text}", f"{name}-form=; {GONE}{text}"]


@pytest.mark.parametrize("text", ["lax", "LAX", "Lax", "strict", "STRICT", "none", "NONE"])
def test_samesite_in_any_case_of_letters(text: str) -> None:  # F15
    """It is written as browsers document it."""
    assert CookieAttributes(secure=True, samesite=text).samesite == text.capitalize()


@pytest.mark.parametrize("wrong", ["", "no", "Lax ", None, False, b"Lax"])
def test_samesite_is_one_of_three_texts(wrong: Any) -> None:
    """None is no text: whoever wants SameSite=None has to write it."""
    with pytest.raises(ValueError, match=r"samesite must be one of 'Lax', 'Strict', 'None'$"):
        CookieAttributes(secure=True, samesite=wrong)


@pytest.mark.parametrize("wrong", ["", "urgent", 1])
def test_priority_is_one_of_three_texts(wrong: Any) -> None:
    """The error names the argument and what it takes."""
    with pytest.raises(ValueError, match=r"cookie_priority must be one of 'Low', 'Medium', 'High'$"):
        CookieAttributes(priority=wrong)


@pytest.mark.parametrize(
    ("argument", "attributes", "reason"),
    [
        ("samesite", {"samesite": "None"}, "browsers refuse SameSite=None without Secure"),
        ("cookie_domain", {"domain": "example.org"}, "over plain HTTP, anybody on the network"),
        (
            "cookie_partitioned",
            {"samesite": "None", "partitioned": True},
            "browsers refuse Partitioned without Secure",
        ),
    ],
)
def test_what_needs_tls_is_refused_without_it(
    argument: str, attributes: dict[str, Any], reason: str
) -> None:  # A4
    """The error says why, and what to set."""
    with pytest.raises(NeedsSecure, match=f"^{argument}: {reason}.*; it also needs secure=True$"):
        CookieAttributes(**attributes)


@pytest.mark.parametrize("samesite", ["Lax", "Strict"])
def test_partitioned_without_samesite_none_is_refused(samesite: str) -> None:
    """No browser would ever send that cookie from a frame, which is what it is for."""
    with pytest.raises(ValueError, match="cookie_partitioned has no effect without samesite='None'"):
        CookieAttributes(secure=True, samesite=samesite, partitioned=True)


# --- the domain ---


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.co.uk", "example.co.uk"),
        ("login.example.org", "login.example.org"),
        ("someone.github.io", "someone.github.io"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("corp.internal", "corp.internal"),
        ("app.localhost", "app.localhost"),
        ("www.ck", "www.ck"),
        ("a.b.kobe.jp", "a.b.kobe.jp"),
    ],
)
def test_domain_is_below_a_public_suffix(text: str, domain: str) -> None:
    """Also below one that the list does not know."""
    assert parse_cookie_domain(text) == domain


@pytest.mark.parametrize(
    "text",
    ["org", "localhost", "internal", "co.uk", "github.io", "CO.UK", "anything.ck", "b.kobe.jp", "xn--p1ai"],
)
def test_domain_that_is_a_public_suffix_is_refused(text: str) -> None:
    """Every site under it would get the cookie: top-level domains, and what the list has."""
    with pytest.raises(ValueError, match="is a public suffix, so browsers refuse it"):
        parse_cookie_domain(text)


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "192.0.2.7", "[::1]", "[2001:db8::1]", "1.2.3", "example.0x7f", "127.1"]
)
def test_domain_that_is_an_address_is_refused(text: str) -> None:
    """In every form that a browser reads as one."""
    with pytest.raises(ValueError, match="is an address"):
        parse_cookie_domain(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", ".example.org", "example.org.", "a..org", "*.example.org", "-a.org", " example.org"),
        *(
            "example.org:443",
            "https://example.org",
            "example.org/",
            "user@example.org",
            "::1",
            "bücher.example",
        ),
        *("example.org\n", "example.org; Secure", "a" * 64 + ".org", "a." * 200 + "org"),
    ],
)
def test_domain_that_is_no_name_is_refused(text: str) -> None:
    """Nothing but a name reaches the header."""
    with pytest.raises(ValueError, match=r"must be a name such as example\.org: no dot at either end"):
        parse_cookie_domain(text)


def test_domain_needs_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package nothing is guessed; the error says what to install."""
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    with pytest.raises(ValueError, match=r"pip install 'stormcellar\[domain\]'"):
        parse_cookie_domain("not-asked-before.example")


# --- names that never mix ---


def test_cookies_for_a_host_a_domain_and_a_partition_never_mix() -> None:  # A7
    """Each setting reads its own cookie alone, also if the browser still sends those of the others."""
    ways = [
        {"secure": True, "samesite": "None"},
        {"secure": True, "samesite": "None", "domain": "example.org"},
        {"secure": True, "samesite": "None", "partitioned": True},
        EVERYTHING,
    ]
    jars = [cookies(**way) for way in ways]
    sids = [SessionId.mint() for _ in ways]
    sent = ["; ".join(f"{jar.name}={written(jar, sid)}" for jar, sid in zip(jars, sids, strict=True))]

    assert [jar.read(sent) for jar in jars] == sids


@pytest.mark.parametrize("name", ["id-form", "-form", "id-device", "id-partitioned", "-partitioned"])
def test_names_that_other_cookies_get_are_reserved(name: str) -> None:  # A14
    """Or a second server on the host could be given the name of a cookie of the first."""
    with pytest.raises(ValueError, match="is reserved; choose one that does not end in -"):
        CookieAttributes(name)


def test_longest_name_with_everything_fits() -> None:  # A13
    """Name, value and attributes stay far below the 4096 bytes that browsers accept."""
    lines = set_and_deleted(name="n" * 64, **EVERYTHING | {"domain": "a" * 60 + ".example.org"})

    assert max(map(len, lines)) < 600


def test_manager_passes_its_arguments_on() -> None:
    """What `CookieAttributes` takes, the manager takes as well, and refuses for the same reasons."""
    manager = SessionManager(
        MemoryStore(),
        secrets=[KEY],
        secure=True,
        cookie_name="sid",
        samesite="none",
        cookie_domain="example.org",
        cookie_partitioned=True,
        cookie_priority="low",
    )
    response = Response()
    manager.cookies.clear(response)

    assert response[0].startswith("__Secure-sid-partitioned=; ")
    assert response[0].endswith("; SameSite=None; Secure; Domain=example.org; Partitioned; Priority=Low")
    with pytest.raises(ValueError, match="it also needs secure=True"):
        SessionManager(MemoryStore(), secrets=[KEY], cookie_domain="example.org")
