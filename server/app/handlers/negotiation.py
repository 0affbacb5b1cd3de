"""What a request wants: JSON or a page, and where to go from here."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

_PATH = re.compile(r"/[!-~]*")
_MAX_PATH = 2048
_MAX_MEDIA_RANGES = 64
# Pages it makes no sense to land on after sign-in: loops, what is no page, and what only takes a POST.
_NOT_NEXT = re.compile(
    r"/(login|logout|signed-out|idle\.css|session/increment|account/confirm"
    r"|account/sessions/([^/]+/revoke|revoke-others))/?",
    re.IGNORECASE,
)


def prefers_json(accept: str) -> bool:
    """Whether an Accept header ranks application/json above text/html.

    Of two with the same weight the one that is named more exactly is preferred, so `application/json, */*`
    means JSON; a page otherwise.
    """
    ranges = [_parsed(part) for part in accept.split(",")[:_MAX_MEDIA_RANGES]]
    json_rank, html_rank = _rank(ranges, "application/json"), _rank(ranges, "text/html")
    return json_rank > html_rank and json_rank[0] > 0


def _rank(ranges: list[tuple[str, float]], media: str) -> tuple[float, int]:
    """Return the weight of *media*, as the most exact range that covers it says, and how exact that is."""
    for exactness, pattern in ((3, media), (2, media.partition("/")[0] + "/*"), (1, "*/*")):
        for covered, weight in ranges:
            if covered == pattern:
                return weight, exactness
    return 0.0, 0


def _parsed(part: str) -> tuple[str, float]:
    pattern, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        if match := re.fullmatch(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", parameter):
            return pattern, float(match[1])
    return pattern, 1.0


def is_local(target: str) -> bool:
    """Whether *target* is a path on this site however a browser parses it.

    No scheme, no host however spelled, no backslash, control character or space. Source: WHATWG URL, 4.4;
    OWASP Unvalidated Redirects Cheat Sheet.
    """
    if len(target) > _MAX_PATH or not _PATH.fullmatch(target) or "\\" in target:
        return False
    decoded = _decoded_path(target)
    return "//" not in decoded and "\\" not in decoded and decoded.isprintable()


def safe_next(target: str | None) -> str:
    """Return *target* if it is a path on this site worth landing on after sign-in, else `/`."""
    if target is None or not is_local(target):
        return "/"
    return "/" if _NOT_NEXT.fullmatch(posixpath.normpath(_decoded_path(target))) else target


def _decoded_path(target: str) -> str:
    return unquote(unquote(re.split(r"[?#]", target, maxsplit=1)[0]))
