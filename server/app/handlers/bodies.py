"""Request bodies: their media type, a JSON object, the fields of a form."""

from __future__ import annotations

import re
from typing import Any

from tornado.httputil import HTTPServerRequest

from stormcellar.app.error_texts import Problem
from stormcellar.sessions.data import json_values as values

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MAX_BODY_BYTES = 256 * 1024


def is_plain_type(content_type: str, media: str) -> bool:
    """Whether *content_type* is *media* with no parameter but charset=utf-8."""
    pattern = re.escape(media) + r"[ \t]*(;[ \t]*charset=(utf-8|\"utf-8\")[ \t]*)?"
    return re.fullmatch(pattern, content_type.strip(" \t"), re.IGNORECASE) is not None


def require_type(request: HTTPServerRequest, *allowed: str) -> None:
    """Refuse a body over 256 KiB, and a media type that is missing or not *allowed*.

    A Content-Type is checked even if the body is empty.

    Raises:
        Problem: 413 or 415.
    """
    if len(request.body) > MAX_BODY_BYTES:
        raise Problem(413)
    content_type = request.headers.get("Content-Type", "")
    if (request.body or content_type) and not any(is_plain_type(content_type, media) for media in allowed):
        raise Problem(415)


def json_object(request: HTTPServerRequest, *, unique: bool = False) -> dict[str, Any]:
    """Parse the body as a JSON object.

    Args:
        unique: Refuse an object with duplicate keys. By default the last value of a key is used.

    Raises:
        Problem: 400, with the reason.
    """
    try:
        body = values.parse(request.body, unique=unique)
    except values.NotJSON as exc:
        raise Problem(400, f"The body is not valid: {exc}.") from None
    if not isinstance(body, dict):
        raise Problem(400, "The body must be a JSON object.")
    return body


def text_fields(request: HTTPServerRequest, *names: str, optional: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the fields of a form or a JSON object: each is sent once, and returned unchanged.

    Raises:
        Problem: 400 for a missing, duplicate, undecodable or non-string field, or one in the URL.
    """
    if request.query_arguments.keys() & set(names):
        raise Problem(400, f"Send {', '.join(names)} in the body, not in the URL.")
    if is_plain_type(request.headers.get("Content-Type", ""), JSON):
        body = json_object(request, unique=True)
        found = {name: body[name] for name in (*names, *optional) if body.get(name) is not None}
    else:
        given = request.body_arguments
        found = {name: _only_text(given[name]) for name in (*names, *optional) if name in given}
    if not found.keys() >= set(names) or not all(isinstance(value, str) for value in found.values()):
        raise Problem(400, f"Send each of {', '.join(names)} exactly once, as text.")
    return found


def form_field(request: HTTPServerRequest, name: str) -> str:
    """Return a field of a form that is to be filled in again; empty if it was not sent once, as text."""
    return _only_text(request.body_arguments.get(name, [])) or ""


def _only_text(sent: list[bytes]) -> str | None:
    # get_body_argument() replaces control characters by spaces, which would change a password.
    try:
        return sent[0].decode() if len(sent) == 1 else None
    except UnicodeDecodeError:
        return None
