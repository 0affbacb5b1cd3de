"""What a request of a test client consists of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict
from urllib.parse import urlencode, urljoin, urlsplit

Fields = Mapping[str, str | Iterable[str]]
"""What a form sends: a value, or several, for each name."""
Headers = Mapping[str, str | None]
"""Headers of one request. None leaves out a header that the client would send."""

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
REDIRECTS = (301, 302, 303, 307, 308)
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


class RequestOptions(TypedDict, total=False):
    """What each method of `Client` that sends a request takes besides the path."""

    headers: Headers
    """They replace those of the client, such as Cookie and Origin."""
    follow_redirects: bool
    """Follow redirects within the application, at most 10. One to another site is returned as it is."""


class BodyOptions(RequestOptions, total=False):
    """What the methods that send a body take in addition."""

    json: Any
    """Sent as JSON; None: no JSON."""
    body: bytes | str
    """Sent unchanged; set a Content-Type in *headers*."""
    form_token: bool
    """False: the request has no form token, as one from another site."""


def encoded(
    data: Fields | None, json_value: Any, body: bytes | str | None
) -> tuple[bytes | None, dict[str, str]]:
    """Return the body of a request, and its Content-Type.

    Raises:
        ValueError: There is more than one body.
        TypeError: *data* is no mapping, or *json_value* is no JSON.
    """
    if sum(each is not None for each in (data, json_value, body)) > 1:
        raise ValueError("a request has one body: data, json or body")
    if data is not None:
        if not isinstance(data, Mapping):
            raise TypeError(f"data must be a mapping of form fields, not {type(data).__name__}: use body=")
        return urlencode(data, doseq=True).encode(), {"Content-Type": FORM}
    if json_value is not None:
        return json.dumps(json_value).encode(), {"Content-Type": JSON}
    return body.encode() if isinstance(body, str) else body, {}


def path_of(target: str, *, base: str, netlocs: Iterable[str]) -> str | None:
    """Return the path and query of *target*, relative to the URL *base*; None if it is on another host."""
    where = urlsplit(urljoin(base, target))
    if where.scheme not in ("http", "https") or where.netloc not in netlocs:
        return None
    return (where.path or "/") + (f"?{where.query}" if where.query else "")
