"""The cookie that a response sends although the handler changed nothing: under a new ID, or once more.

A browser keeps a visitor's cookie only for the Max-Age that it was set with, so a visitor who comes back
needs it again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from stormcellar.sessions.manager import SessionManager
from stormcellar.sessions.request_info import CookieChange
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Delta, Record, StoreUnavailable
from stormcellar.web.session_handler import HandlerState

Commit = Callable[[SessionState, Delta], Coroutine[Any, Any, None]]


def commit_with_cookie(held: HandlerState) -> Commit | None:
    """Return the commit that also sends the cookie, under a new ID or again; None if neither is due."""
    state, sessions = held.state, held.sessions
    if state is None or state.record is None or state.sealed or not sessions.sends_unasked:
        return None
    if sessions.wants_renewal(state):
        return sessions.lifecycle.commit_and_renew
    signed_s = held.cookie_signed_s if state.user is None and state.request.may_set_cookie else None
    if signed_s is not None and sessions.lifetime.wants_cookie_again(
        state.record, signed_s=signed_s, now_ms=sessions.now_ms()
    ):
        return partial(_commit_and_send_again, sessions, signed_s)
    return None


async def _commit_and_send_again(
    sessions: SessionManager, signed_s: int, state: SessionState, frozen: Delta
) -> None:
    """Save what remains of *frozen*, then send the cookie again if the session still has this ID.

    Without that question to the store, the response to a slow request would replace the cookie of a sign-in.
    If the store does not answer it, the next request sends the cookie.
    """
    await sessions.lifecycle.commit(state, frozen)
    if state.sid is None or state.cookie is not CookieChange.KEEP:
        return
    with suppress(StoreUnavailable):
        now_ms = sessions.now_ms()
        found = await sessions.store.load(state.sid.credential, now_ms=now_ms)
        if isinstance(found, Record) and sessions.lifetime.wants_cookie_again(
            found, signed_s=signed_s, now_ms=now_ms
        ):
            state.cookie = CookieChange.SET
