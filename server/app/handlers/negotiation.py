"""Content negotiation, and the targets that a redirect may have."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

_PATH = re.compile(r"/[!-~]*")
_MAX_PATH = 2048
_MAX_MEDIA_RANGES = 64
# Not useful after sign-in: redirect loops, what only pages load, and URLs that accept POST only.
_NOT_NEXT = re.compile(
    r"/(login|logout|signed-out|forget\.css|idle\.css|events|session/increment|account/confirm"
    r"|account/sessions/([^/]+/revoke|revoke-others))/?",
    re.IGNORECASE,
)


def prefers_json(accept: str) -> bool:
    """Whether an Accept header ranks application/json above text/html.

    With equal weights the more specific media range wins, so `application/json, */*` means JSON. Without
    a preference the answer is a page.
    """
    ranges = [_parsed(part) for part in accept.split(",")[:_MAX_MEDIA_RANGES]]
    json_rank, html_rank = _rank(ranges, "application/json"), _rank(ranges, "text/html")
    return json_rank > html_rank and json_rank[0] > 0


def _rank(ranges: list[tuple[str, float]], media: str) -> tuple[float, int]:
    """Return the weight of *media* by the most specific range that matches it, and how specific that is."""
    for specificity, pattern in ((3, media), (2, media.partition("/")[0] + "/*"), (1, "*/*")):
        for media_range, weight in ranges:
            if media_range == pattern:
                return weight, specificity
    return 0.0, 0


def _parsed(part: str) -> tuple[str, float]:
    pattern, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        if match := re.fullmatch(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", parameter):
            return pattern, float(match[1])
    return pattern, 1.0


def is_local(target: str) -> bool:
    """Whether every browser parses *target* as a path on this site.

    It has no scheme, no host in any encoding, no backslash, control character or space. Sources: WHATWG
    URL, 4.4; OWASP Unvalidated Redirects Cheat Sheet.
    """
    if len(target) > _MAX_PATH or not _PATH.fullmatch(target) or "\\" in target:
        return False
    decoded = _decoded_path(target)
    return "//" not in decoded and "\\" not in decoded and decoded.isprintable()


def safe_next(target: str | None) -> str:
    """Return *target* if it is a path on this site that is useful after sign-in, else `/`."""
    if target is None or not is_local(target):
        return "/"
    return "/" if _NOT_NEXT.fullmatch(posixpath.normpath(_decoded_path(target))) else target


def _decoded_path(target: str) -> str:
    return unquote(unquote(re.split(r"[?#]", target, maxsplit=1)[0]))
