"""What a request wants: JSON or a page, and where it may be sent on to."""

from __future__ import annotations

import pytest

from stormcellar.app.handlers.bodies import is_plain_type
from stormcellar.app.handlers.negotiation import is_local, prefers_json, safe_next

WANTS_JSON = [
    "application/json",
    "APPLICATION/JSON",
    "application/json; charset=utf-8",
    "application/json, text/plain, */*",
    "application/json, */*;q=0.9",
    "application/*",
    "application/json;q=0.2, text/html;q=0.1",
    "text/html;q=0, application/json",
    "text/html;q=0.5,application/json;q=0.9",
    "application/json;q=0.001",
    "text/*;q=0.3, application/json;q=0.4",
    "*/*;q=0.5, application/json",
    "text/html;q=0, */*",
    "  application/json  ;  q=0.7  ,text/html;q=0.6",
    ",,application/json,,",
]

WANTS_A_PAGE = [
    "",
    "*/*",
    "text/html",
    "text/*",
    "image/png",
    "text/html, application/json",
    "application/json, text/html",
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "text/*, application/*",
    "application/json;q=0",
    "application/json;q=0.0, text/html;q=0",
    "application/json;q=0, */*",
    "application/json;q=0.5, text/html;q=0.5",
    "application/json;q=0.5, text/html",
    "application/json-patch+json",
    "application/jsonp",
    "json",
    "application",
    "application/",
    "/",
    ";;;,;q=1",
    "text/html;q=banana",
    "\x00\xff\ud800",
    "a" * 10_000,
    ("x/y," * 64) + "application/json",
]


@pytest.mark.parametrize("accept", WANTS_JSON)
def test_json_for_whoever_prefers_it(accept: str) -> None:
    """A higher weight for JSON, or the same weight and a more exact name, means JSON."""
    assert prefers_json(accept)


@pytest.mark.parametrize("accept", WANTS_A_PAGE)
def test_a_page_for_everybody_else(accept: str) -> None:
    """No wish, no preference, a wish for neither, and what is no Accept header at all mean a page."""
    assert not prefers_json(accept)


NEXT = [
    "/",
    "/account/sessions",
    "/account/sessions?page=2&sort=a%26b#top",
    "/session",
    "/search?q=//evil.example",
    "/search?q=https://evil.example/\x7e",
    "/a/b/../c",
    "/%C3%A9",
    "/loginx",
    "/log%69n-help",
    "/account/sessions/revoke",
    "/a:b@c",
    "/" + "a" * 2047,
]

HOSTILE = [
    None,
    "",
    " ",
    "evil.example",
    "account/sessions",
    "?x",
    "#x",
    ".",
    "..",
    "https://evil.example/",
    "https:evil.example",
    "https:/evil.example",
    "HTTPS://evil.example",
    "http:///evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "//evil.example",
    "///evil.example",
    "////evil.example",
    "//evil.example/%2e%2e",
    "//\\evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/\\/evil.example",
    "/a\\b",
    "/a?b\\c",
    "/%5cevil.example",
    "/%5C%5Cevil.example",
    "/%255cevil.example",
    "/%2fevil.example",
    "/%2Fevil.example",
    "/%252fevil.example",
    "/x/%2f%2fevil.example",
    "/x//evil.example",
    "/.//evil.example",
    "/..//evil.example",
    "/x/..//evil.example",
    "/%2e%2e//evil.example",
    "/\tevil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\nSet-Cookie: id=x",
    "/%0d%0aSet-Cookie:%20id=x",
    "/%09/evil.example",
    "/%00",
    "/%7f",
    "/\x00",
    "/\x7f",
    "\t//evil.example",
    " //evil.example",
    " /a",
    "/a b",
    "/a\u00a0b",
    "/\u2028",
    "/\u3002evil.example",
    "/\uff0fevil.example",
    "/%e2%80%a8",
    "/\u202egnp",
    "/\ud800",
    "@evil.example",
    "/" + "a" * 2048,
]

LOOPS = [
    "/login",
    "/login/",
    "/login?next=/login",
    "/login#x",
    "/LOGIN",
    "/%6cogin",
    "/%6Cog%69n",
    "/%256cogin",
    "/./login",
    "/x/../login",
    "/%2e/login",
    "/x/%2e%2e/login",
    "/logout",
    "/logout/",
    "/logout?x=1",
    "/session/increment",
    "/account/sessions/revoke-others",
    "/account/sessions/AAAAAAAAAAAAAAAAAAAAAA/revoke",
    "/account/./sessions/x/revoke?a=b",
    "/account/confirm",
    "/account/confirm?next=/",
    "/signed-out",
    "/idle.css?left=9",
    "/forget.css",
    "/events",
    "/events?list=sessions",
]


@pytest.mark.parametrize("target", NEXT)
def test_a_path_of_this_site_is_gone_to(target: str) -> None:
    """Exactly as it was given."""
    assert safe_next(target) == target


@pytest.mark.parametrize("target", HOSTILE)
def test_nothing_else_is_gone_to(target: str | None) -> None:
    """Whatever a browser could take for another site, a header or a script becomes the home page."""
    assert safe_next(target) == "/"  # E13
    assert target is None or not is_local(target)


@pytest.mark.parametrize("target", LOOPS)
def test_nobody_is_sent_to_sign_in_again_or_out(target: str) -> None:
    """A loop, and an address that only takes a POST, becomes the home page however it is spelled."""
    assert safe_next(target) == "/"  # E14


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        " application/json ",
        "Application/JSON; Charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json ; charset=utf-8 ",
    ],
)
def test_a_plain_type_may_say_its_charset(content_type: str) -> None:
    """UTF-8 alone, in any case, quoted or not."""
    assert is_plain_type(content_type, "application/json")


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/jsonx",
        "application/json;",
        "application/json; charset",
        "application/json; charset=",
        "application/json; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-8",
        "application/json; charset='utf-8'",
        "application/json, application/json",
        "application/json\xa0",
        "application/json\n",
        "applicationXjson",
        "text/plain; application/json",
    ],
)
def test_a_type_with_anything_more_is_not_plain(content_type: str) -> None:
    """Another parameter, another charset, or another name is another type."""
    assert not is_plain_type(content_type, "application/json")  # E8
