"""How long a person stays signed in, and the style sheet that warns them of the end without a script."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stormcellar.app.handlers.base import BaseHandler
from stormcellar.app.handlers.display import clock_time, duration
from stormcellar.app.problems import Problem
from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.session import Session
from stormcellar.timestamps import iso_utc

WARN_S = 120
_SECONDS = re.compile("[0-9]{1,9}")
# What is hidden like this is hidden from screen readers and the keyboard too. With the time in the address of
# a style sheet there is no need of a script, nor of a style in the page, which the CSP forbids.
_CSS = """@keyframes show {{ to {{ visibility: visible }} }}
@keyframes hide {{ from {{ visibility: visible }} to {{ visibility: hidden }} }}
#idle-soon {{ animation: show 1ms {soon}s forwards, hide 1ms {over}s forwards }}
#idle-over {{ animation: show 1ms {over}s forwards }}
"""


@dataclass(frozen=True, slots=True)
class Stay:
    """What a page says about the end of the session: `left_s` seconds from now if nothing happens."""

    left_s: int
    is_sliding: bool
    """Whether activity puts the end off."""
    until: str
    """The latest end, for people."""
    until_iso: str
    here: str
    """The page to open for more time."""

    @property
    def left(self) -> str:
        """Return the seconds left, for people."""
        return duration(self.left_s)


def stay(sessions: SessionManager, session: Session, *, here: str) -> Stay | None:
    """Return how long the user of *session* stays signed in from now; None if there is no user."""
    record, left_s, most_s = session.record, sessions.idle_left_s(session), sessions.deadline_left_s(session)
    if record is None or record.user is None or left_s is None or most_s is None:
        return None
    return Stay(
        left_s=left_s,
        is_sliding=left_s < most_s,
        until=clock_time(record.deadline_ms, now_ms=sessions.now_ms()),
        until_iso=iso_utc(record.deadline_ms),
        here=here,
    )


class IdleStyle(BaseHandler):
    """`GET /idle.css?left=SECONDS`: shows one banner two minutes before the end, another after it.

    It needs no session, so asking for it is no activity and no store is asked.
    """

    def get(self) -> None:
        """Answer with the rules for the seconds given."""
        given = self.get_query_arguments("left", strip=False)
        if len(given) != 1 or not _SECONDS.fullmatch(given[0]):
            raise Problem(400, "left must be given once, a whole number of seconds.")
        left_s = int(given[0])
        self.set_header("Content-Type", "text/css; charset=UTF-8")
        self.finish(_CSS.format(soon=max(0, left_s - WARN_S), over=left_s))
