"""What a request wants and what it may send: Accept, Content-Type, `next`."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote

_NEXT = re.compile(r"/[!-~]*")
_MAX_NEXT = 2048
# Pages it makes no sense to land on after sign-in: loops, and routes that only take a POST.
_NOT_NEXT = re.compile(
    r"/(login|logout|session/increment|account/sessions/([^/]+/revoke|revoke-others))/?", re.IGNORECASE
)


def prefers_json(accept: str) -> bool:
    """Whether an Accept header ranks application/json above text/html."""
    weights = {"application/json": 0.0, "text/html": 0.0}
    specificity = dict.fromkeys(weights, 0)
    for part in accept.split(",")[:64]:
        pattern, *parameters = (piece.strip().lower() for piece in part.split(";"))
        for media in weights:
            rank = _specificity(pattern, media)
            if rank > specificity[media]:
                specificity[media], weights[media] = rank, _quality(parameters)
    return weights["application/json"] > weights["text/html"]


def _specificity(pattern: str, media: str) -> int:
    if pattern == media:
        return 3
    if pattern == media.partition("/")[0] + "/*":
        return 2
    return 1 if pattern == "*/*" else 0


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if match := re.fullmatch(r"q\s*=\s*([01](?:\.\d{0,3})?)", parameter):
            return min(float(match[1]), 1.0)
    return 1.0


def is_plain_type(content_type: str, media: str) -> bool:
    """Whether *content_type* is *media* with no parameter but charset=utf-8."""
    pattern = re.escape(media) + r"\s*(;\s*charset\s*=\s*(utf-8|\"utf-8\")\s*)?"
    return re.fullmatch(pattern, content_type.strip(), re.IGNORECASE) is not None


def safe_next(target: str | None) -> str:
    """Return *target* if it is a path on this site worth landing on, else `/`.

    Judged as a browser would parse it: no scheme, no host however spelled, no backslash, control character or
    space. Source: WHATWG URL, 4.4; OWASP Unvalidated Redirects Cheat Sheet.
    """
    if not target or len(target) > _MAX_NEXT or not _NEXT.fullmatch(target) or "\\" in target:
        return "/"
    path = re.split(r"[?#]", target, maxsplit=1)[0]
    decoded = unquote(unquote(path))
    if "//" in decoded or "\\" in decoded or not decoded.isprintable():
        return "/"
    return "/" if _NOT_NEXT.fullmatch(posixpath.normpath(decoded)) else target
