"""The end of a session as pages show it, and a style sheet that warns of it without a script."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stormcellar.app.error_texts import Problem
from stormcellar.app.handlers.base import BaseHandler
from stormcellar.app.handlers.display import clock_time, duration
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.session import Session
from stormcellar.timestamps import iso_utc

WARN_S = 120
_SECONDS = re.compile("[0-9]{1,9}")
# `visibility` also hides an element from screen readers and the keyboard. The URL of the style sheet contains
# the seconds left, so neither a script nor an inline style is needed; the CSP forbids both.
_CSS = """@keyframes show {{ to {{ visibility: visible }} }}
@keyframes hide {{ from {{ visibility: visible }} to {{ visibility: hidden }} }}
#idle-soon {{ animation: show 1ms {soon}s forwards, hide 1ms {over}s forwards }}
#idle-over {{ animation: show 1ms {over}s forwards }}
"""


@dataclass(frozen=True, slots=True)
class Expiry:
    """When the user will be signed out: in `left_s` seconds without activity."""

    left_s: int
    is_sliding: bool
    """Whether activity extends the session."""
    until: str
    """The latest end, as text."""
    until_iso: str
    continue_url: str
    """The page to open for more time."""

    @property
    def left(self) -> str:
        """Return the time left, as text."""
        return duration(self.left_s)


def expiry(sessions: SessionManager, session: Session, *, continue_url: str) -> Expiry | None:
    """Return when the user of *session* will be signed out; None for a visitor."""
    record, left_s, most_s = session.record, sessions.idle_left_s(session), sessions.deadline_left_s(session)
    if record is None or record.user is None or left_s is None or most_s is None:
        return None
    return Expiry(
        left_s=left_s,
        is_sliding=left_s < most_s,
        until=clock_time(record.deadline_ms, now_ms=sessions.now_ms()),
        until_iso=iso_utc(record.deadline_ms),
        continue_url=continue_url,
    )


class IdleStyle(BaseHandler):
    """`GET /idle.css?left=SECONDS`: show a banner two minutes before the end, and another one after it.

    It uses no session, so requesting it is no activity and needs no store.
    """

    def get(self) -> None:
        """Answer with the rules for the given seconds."""
        given = self.get_query_arguments("left", strip=False)
        if len(given) != 1 or not _SECONDS.fullmatch(given[0]):
            raise Problem(400, "Send left exactly once, as a whole number of seconds.")
        left_s = int(given[0])
        self.set_header("Content-Type", "text/css; charset=UTF-8")
        self.finish(_CSS.format(soon=max(0, left_s - WARN_S), over=left_s))
