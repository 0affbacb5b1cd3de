"""What must hold of every answer, of the log and of the store, whatever was sent."""

from __future__ import annotations

import html
import json
import logging
import re
from urllib.parse import unquote_plus

from stormcellar.stores import Handle, Record
from tests.app.fuzz.requests import Sent
from tests.app.fuzz.wire import Answer
from tests.app.fuzz.world import Holder, World
from tests.support.site import PASSWORD

_LINK = re.compile(rb'(?:href|src|action|formaction)="([^"]*)"')
_OURS = re.compile(
    rb'<script src="/static/live\.js\?v=[0-9a-f]+" defer data-user="[^"<>]*" data-sign-in="[^"<>]*"></script>'
)


class Judge:
    """Knows what must hold after each request."""

    def __init__(self, world: World) -> None:
        self.world = world

    def answer(self, sent: Sent, answer: Answer, after: dict[Handle, Record]) -> None:
        """Judge one answer by what it says."""
        assert answer.status < 500, f"status {answer.status}"
        cookies = answer.header("Set-Cookie")
        shown = "\n".join(f"{n}: {v}" for n, v in answer.headers if n != "Set-Cookie").encode() + answer.body
        self._tells_nothing(sent.holder, shown, "the answer")
        for name, _ in answer.headers:
            assert name.lower() not in ("x-injected", "server", "access-control-allow-origin"), name
        self._page(answer)
        for line in cookies:
            self._cookie(sent, line, shown, after)
        self._user(sent, answer)

    def _page(self, answer: Answer) -> None:
        """Judge where an answer leads, and whether anything of a visitor's became markup."""
        is_json = answer.header("Content-Type")[:1] == ["application/json; charset=UTF-8"]
        page = b"" if is_json else answer.body
        links = [html.unescape(link.decode("latin-1")) for link in _LINK.findall(page)]
        for link in answer.header("Location") + links:
            assert is_on_site(link), f"leads away: {link!r}"
        assert b"<script" not in _OURS.sub(b"", page).lower(), "a script"

    def log(self, sent: Sent, lines: list[tuple[int, str]]) -> None:
        """Judge what was logged."""
        for level, line in lines:
            assert level < logging.ERROR, f"logged: {line}"
            assert line.isprintable(), f"logged: {line!r}"
            self._tells_nothing(None, line.encode(), "the log")
            assert PASSWORD not in line, f"logged: {line}"

    def records(self, sent: Sent, after: dict[Handle, Record]) -> None:
        """Judge what became of the sessions."""
        before, holder = self.world.before, sent.holder
        knows_password = PASSWORD in unquote_plus(sent.raw.decode("latin-1"))
        changed = {handle for handle, record in before.items() if after.get(handle) != record}
        new = after.keys() - before.keys()
        if holder.name == "carol":
            changed.discard(holder.handle)
        if sent.method not in ("POST", "PATCH") or sent.is_cross_site or not self._is_proved(sent):
            assert not changed | new, f"changed without the right to it: {_told(before, after)}"
        own = {handle for handle, record in before.items() if record.user and record.user == holder.user}
        assert changed <= own | {holder.handle}, "somebody else's session changed"
        assert not new or knows_password or self._writes(sent), "a record for a visitor"
        for handle in new | (changed & after.keys()):
            was = before[handle].user if handle in before else None
            assert after[handle].user == was or knows_password, "another user"

    def _is_proved(self, sent: Sent) -> bool:
        """Whether a form token is right, or the type is one that no form of another site can send."""
        return sent.holder.token.encode() in sent.raw or b"application/json" in sent.raw.lower()

    def _writes(self, sent: Sent) -> bool:
        """Whether this is what a visitor's session begins with."""
        body = sent.raw.partition(b"\r\n\r\n")[2]
        is_write = (sent.method, sent.path) in (("PATCH", "/session"), ("POST", "/session/increment"))
        try:
            return is_write and bool(isinstance(json.loads(body), dict))
        except ValueError:
            return False

    def _tells_nothing(self, holder: Holder | None, text: bytes, where: str) -> None:
        for each in self.world.holders:
            assert each.secret.encode() not in text, f"a secret of {each.name} in {where}"
            payload = each.cookie.split(b"|")[-2:-1]
            assert not payload or payload[0] not in text, f"the cookie of {each.name} in {where}"
            if each is not holder and each.marker:
                assert each.marker not in text, f"data of {each.name} in {where}"

    def _cookie(self, sent: Sent, line: str, shown: bytes, after: dict[Handle, Record]) -> None:
        """Judge a cookie that is set: well formed, and of a session that this request may have."""
        name, _, rest = line.partition("=")
        value = rest.partition(";")[0]
        cookies = self.world.site.sessions.cookies
        assert name in (cookies.name, cookies.nonce_name, cookies.device_name), line
        assert "; HttpOnly; Path=/; SameSite=" in rest, line
        assert ("; Secure" in rest) == name.startswith("__Host-"), line
        assert re.fullmatch(r"[A-Za-z0-9_|:=-]*", value), line
        if name == cookies.name and value:
            sid = cookies.read([f"{name}={value}"])
            assert sid is not None and sid.handle in after, "a cookie without a session"
            assert sid.credential.verifier == after[sid.handle].verifier, "a cookie that does not count"
            assert sid.secret.encode() not in shown, "the new secret is shown"

    def _user(self, sent: Sent, answer: Answer) -> None:
        """Judge whom the answer takes the request for."""
        if answer.header("Content-Type") != ["application/json; charset=UTF-8"] or not answer.body:
            return
        said = json.loads(answer.body)
        if answer.status == 200 and "user" in said and sent.path != "/login":
            assert said["user"] == sent.holder.user, f"taken for {said['user']}"


def _told(before: dict[Handle, Record], after: dict[Handle, Record]) -> str:
    """Return what became of records, for whoever reads the failure."""
    handles = sorted(before.keys() | after.keys())
    pairs = [(before.get(handle), after.get(handle)) for handle in handles]
    return "; ".join(f"{was} became {now}" for was, now in pairs if was != now)


def is_on_site(link: str) -> bool:
    """Whether a browser that is on the site stays there with *link* (WHATWG URL, 4.4, for http and https)."""
    link = link.strip("".join(map(chr, range(0x21))))
    link = re.sub("[\t\n\r]", "", link).replace("\\", "/")
    return re.match("[A-Za-z][A-Za-z0-9+.-]*:", link) is None and not link.startswith("//")
