"""Hostile requests, each made of a few bytes: what the fuzz test sends."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlencode

from stormcellar.sessions.signing import KeyRing
from stormcellar.web.tornado_request import SAFE_METHODS
from tests.app.fuzz.samples import (
    FORM,
    FRAMING,
    HEADERS,
    HOSTS,
    JSON_BODIES,
    LOOKALIKES,
    METHODS,
    NEW_PASSWORDS,
    NEXTS,
    OTHER_COOKIES,
    OTHER_VALUES,
    PASSWORDS,
    PATH_ARGUMENTS,
    PATHS,
    QUERIES,
    RAW_BODIES,
    STRANGE,
    TYPES,
    USERNAMES,
    VERSIONS,
)
from tests.app.fuzz.world import Holder, Route, World
from tests.support.site import JSON

T = TypeVar("T")

TAPE_BYTES = 80

STRANGER = KeyRing(["not a key of the site, 32 bytes or more"])


class Tape:
    """Decisions, read from bytes that hypothesis draws at once; 0 is the plainest, to which it shrinks."""

    def __init__(self, raw: bytes) -> None:
        self._bytes = iter(raw)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of at most 256 *options*."""
        return options[self.number() % len(options)]

    def chance(self, percent: int) -> bool:
        """Return true in so many of 100 cases."""
        return self.number() >= 256 - 256 * percent / 100

    def number(self) -> int:
        """Return a number below 256."""
        return next(self._bytes, 0)


@dataclass(frozen=True)
class Sent:
    """One request, and what the site must make of it."""

    raw: bytes
    method: str
    path: str
    holder: Holder
    is_whole: bool
    """Whether it ends where its headers say, so that the connection can be used again."""
    is_form: bool
    is_cross_site: bool
    """Whether a browser says that another site sent it."""

    def __str__(self) -> str:
        lines = self.raw.split(b"\r\n")
        return f"the request of {self.holder.name}:\n" + "\n".join(repr(line)[1:] for line in lines) + "\n"


def make_request(raw: bytes, world: World) -> Sent:
    """Return the request that the bytes *raw* stand for."""
    tape = Tape(raw)
    route = tape.pick([route for route in world.routes for _ in route.methods])
    method, target = _method(tape, route), _target(tape, world, route)
    cookies, holder = _cookies(tape, world)
    has_body = method not in ("GET", "HEAD") or tape.chance(5)
    media, body = _body(tape, world, route, holder) if has_body else ("", b"")
    headers = _headers(tape, world, media=media, length=len(body))
    lines = [f"{method} {target} {_version(tape)}", *(f"{name}: {value}" for name, value in headers)]
    sent = [line.encode("latin-1", "replace") for line in lines] + [b"Cookie: " + each for each in cookies]
    lengths = [value for name, value in headers if name in FRAMING]
    return Sent(
        b"\r\n".join(sent) + b"\r\n\r\n" + body,
        method,
        target.partition("?")[0],
        holder,
        is_whole=lengths == [str(len(body))] or not (lengths or body),
        is_form=media == FORM and method == "POST",
        is_cross_site=_is_cross_site(headers),
    )


def _method(tape: Tape, route: Route) -> str:
    if tape.chance(10):
        return tape.pick(METHODS)
    unsafe = [method for method in route.methods if method not in SAFE_METHODS]
    return tape.pick([*route.methods, *unsafe * 3])


def _target(tape: Tape, world: World, route: Route) -> str:
    arguments = [tape.pick([*world.before, *PATH_ARGUMENTS]) for _ in range(route.arguments)]
    path = tape.pick([*route.links, route.path(*arguments)])
    if tape.chance(10):
        path = tape.pick(PATHS)
    return f"{path}?{_query(tape, world)}" if tape.chance(20) else path


def _query(tape: Tape, world: World) -> str:
    query = tape.pick(QUERIES)
    if query == "next=":
        query += quote(tape.pick(NEXTS), safe=tape.pick(("", "/\\:?#[]@")))
    elif query == "_xsrf=":
        query += tape.pick(world.holders).token
    return query


def _version(tape: Tape) -> str:
    return tape.pick(VERSIONS) if tape.chance(4) else "HTTP/1.1"


# --- cookies ---


def _cookies(tape: Tape, world: World) -> tuple[list[bytes], Holder]:
    """Return the Cookie headers, and whom they speak for."""
    pairs = [_cookie(tape, world) for _ in range(tape.pick((1, 1, 1, 1, 1, 2, 2, 3, 0, 0)))]
    if tape.chance(15):
        headers = pairs
    else:
        headers = [tape.pick((b"; ", b"; ", b";", b" ;\t", b";;")).join(pairs)] if pairs else []
    holder = world.holder_of(headers)
    if holder is world.visitor and tape.chance(90):
        headers.append(world.nonce_name + b"=" + holder.secret.encode())
    return headers, holder


def _cookie(tape: Tape, world: World) -> bytes:
    holder = tape.pick(world.holders[1:])
    name, value = world.cookie_name, holder.cookie
    kind = tape.number() % 16
    if kind < 9:
        return name + b"=" + value
    if kind < 13:
        return name + b"=" + _spoiled(tape, value, holder, name.decode())
    if kind < 15:
        return tape.pick(LOOKALIKES)(name) + b"=" + value
    return tape.pick((*OTHER_COOKIES, name, world.nonce_name + b"=" + value))


def _spoiled(tape: Tape, value: bytes, holder: Holder, name: str) -> bytes:
    at = tape.number() % len(value)
    options = (
        b"",
        value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :],
        value[:at],
        value + b"=",
        b'"' + value + b'"',
        value.upper(),
        value + b"\xa0",
        b"\x85" + value,
        quote(value).encode(),
        value * 60,
        value.replace(b"2|1:0", b"2|1:1", 1),
        b"|".join(value.split(b"|")[1:]),
        b"1|2|3",
        b"2|1:0|10:1900000000|2:id|4:AAAA|",
        f"{holder.handle}.{holder.secret}".encode(),
        STRANGER.sign(name, f"{holder.handle}.{holder.secret}", clock=lambda: 1_900_000_000.0).encode(),
    )
    return tape.pick(options)


# --- bodies and headers ---


def _body(tape: Tape, world: World, route: Route, holder: Holder) -> tuple[str, bytes]:
    """Return a media type, mostly the right one, and a body."""
    kind = tape.number() % 8 if FORM in route.types or tape.chance(10) else 5
    if kind < 4:
        fields = _fields(tape, world)
        if not tape.chance(8):
            fields.append(("_xsrf", _token(tape, world, holder)))
        media, body = FORM, urlencode(fields).encode()
    elif kind == 4:
        fields = _fields(tape, world)
        media, body = (
            JSON,
            json.dumps({n: True if n in world.boxes else value for n, value in fields}).encode(),
        )
    elif kind < 7:
        media, body = JSON, tape.pick(JSON_BODIES)
    else:
        media, body = tape.pick(TYPES), tape.pick(RAW_BODIES)
    if tape.chance(6) and body:
        at = tape.number() * len(body) // 256
        body = body[:at] + bytes([tape.number()]) + body[at + 1 :]
    return (tape.pick(TYPES) if tape.chance(6) else media), body


def _fields(tape: Tape, world: World) -> list[tuple[str, str]]:
    """Fill in every field that some form of the site has; now and then leave one out, or give it twice."""
    filled = []
    for name, value in world.fields.items():
        known = next((values for pattern, values in _VALUES if re.search(pattern, name)), None)
        is_odd = tape.chance(6 if known else 50)
        for _ in range(tape.pick((0, 0, 0, 2)) if is_odd else 1):
            filled.append((name, tape.pick(known or (*[value] * 20, *OTHER_VALUES))))
    return filled


_VALUES = (("next", NEXTS), ("user", USERNAMES), ("new", NEW_PASSWORDS), ("pass|current", PASSWORDS))


def _token(tape: Tape, world: World, holder: Holder) -> str:
    """Return the form token that is right, that of somebody else, or one that is none."""
    if not tape.chance(15):
        return holder.token
    other = tape.pick(world.holders).token
    spoiled = other[:9] + ("A" if other[9] != "A" else "B") + other[10:]
    return tape.pick((spoiled, f"{spoiled}.{other}", other[:-1], other * 2, "", "é", other + "\0"))


def _headers(tape: Tape, world: World, *, media: str, length: int) -> list[tuple[str, str]]:
    headers = [("Host", tape.pick(HOSTS) if tape.chance(12) else f"127.0.0.1:{world.site.port}")]
    if media:
        headers.append(("Content-Type", media))
    headers += [_header(tape) for _ in range(tape.pick((0, 0, 0, 1, 1, 2, 3)))]
    if tape.chance(8):
        headers.append(("X-Xsrftoken", tape.pick(world.holders).token))
    if length or tape.chance(50):
        headers.append(("Content-Length", str(length + (tape.pick((1, -1)) if tape.chance(3) else 0))))
    return headers


def _header(tape: Tape) -> tuple[str, str]:
    name = tape.pick(list(HEADERS))
    if name in (*FRAMING, "Host") and not tape.chance(20):
        name = "Accept"
    return name, tape.pick(STRANGE) if tape.chance(20) else tape.pick(HEADERS[name])


def _is_cross_site(headers: list[tuple[str, str]]) -> bool:
    sites = [value for name, value in headers if name == "Sec-Fetch-Site"]
    origins = [value for name, value in headers if name == "Origin"]
    return sites == ["cross-site"] or (not sites and origins == ["https://evil.example"])
