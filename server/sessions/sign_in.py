"""`SignIn`: binds a user to a session, under a new ID."""

from __future__ import annotations

from collections.abc import Callable, Collection

from stormcellar.errors import SessionChanged, SessionEnded, SignInRevoked
from stormcellar.events import Kind
from stormcellar.lifetime import Lifetime
from stormcellar.sessions.account_check import AccountCheck
from stormcellar.sessions.cookies import SessionId
from stormcellar.sessions.data.limits import FLASH, surviving_delta, surviving_keys
from stormcellar.sessions.record_writer import IdChange, RecordWriter
from stormcellar.sessions.request_info import CookieChange, Marks
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Absent, Delta, Handle, Outcome, Record, Store, Why


class SignIn:
    """Runs `Session.login`.

    Args:
        now_ms: Returns Unix time in milliseconds.
    """

    def __init__(
        self,
        store: Store,
        writer: RecordWriter,
        *,
        lifetime: Lifetime,
        accounts: AccountCheck,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._writer = writer
        self._lifetime = lifetime
        self._accounts = accounts
        self._now_ms = now_ms

    async def login(
        self,
        state: SessionState,
        user: str,
        *,
        keep: Collection[str],
        auth_ms: int | None,
        remember: bool | None,
        afresh: bool,
    ) -> None:
        """See `Session.login`."""
        async with state.lock:
            old = state.record
            # Read before the record is written, and compared after it.
            account = await self._accounts.account_id(user)
            marks = Marks(self._is_remembered(state, user, remember), account)
            now_ms = self._now_ms()
            deadline_ms = self._lifetime.deadline_ms(now_ms, is_remembered=marks.is_remembered)
            before = None if old is None else old.user
            change = IdChange(
                user=user,
                auth_ms=now_ms if auth_ms is None else auth_ms,
                deadline_ms=state.limited(deadline_ms, now_ms),
                marks=marks,
                keep=surviving_keys(before, user, keep, messages=state.data.written(FLASH)),
            )
            is_rotated = await self._bind(state, change, afresh=afresh)
            await self._check_account(state)
            if is_rotated and old is not None and before not in (None, user):
                self._writer.emit_destroyed(old, state.request, reason="replaced")
            self._writer.emit(Kind.AUTHENTICATED, state, reason="again" if before == user else "sign-in")
        if self._lifetime.max_per_user is not None:
            await self._end_oldest(state, user, self._lifetime.max_per_user)

    # --- the caller holds state.lock ---

    async def _bind(self, state: SessionState, change: IdChange, *, afresh: bool) -> bool:
        """Give the user this session under a new ID, or another session; return whether it is this one."""
        pending = state.data.pending() or Delta()
        delta = pending if change.keep is None else surviving_delta(pending, change.keep)
        if state.record is not None:
            if await self._writer.rotate(state, delta, change) is Outcome.APPLIED:
                state.retain(state.record.data)
                return True
            if not afresh:
                raise SessionChanged
            if state.record.expires_ms <= self._now_ms() and not await self._is_superseded(state.sid):
                await self._writer.destroy(state.record, state.request, reason="replaced")
            # A double click, or a sign-out elsewhere: who proved a password gets a session of their own.
            delta = Delta({**state.data.written(FLASH), **surviving_delta(delta, frozenset()).put})
        if state.stale is not None and not afresh:
            raise SessionEnded
        if not await self._is_superseded(state.stale if state.is_expired else None):
            await self._writer.end_expired(state)
        await self._writer.create(
            state,
            data=dict(delta.put),
            user=change.user,
            auth_ms=change.auth_ms,
            marks=change.marks,
        )
        state.retain(delta.put)
        if state.unsettled is not None:
            await self._writer.destroy(state.unsettled, state.request, reason="account")
        return False

    async def _is_superseded(self, sid: SessionId | None) -> bool:
        """Whether another sign-in with the same cookie has taken the session over: that must not end it."""
        if sid is None:
            return False
        found = await self._store.load(sid.credential, now_ms=self._now_ms())
        return isinstance(found, Absent) and found.why is Why.SUPERSEDED

    def _is_remembered(self, state: SessionState, user: str, remember: bool | None) -> bool:
        """Whether the session lasts after sign-in; a second proof by the same user changes nothing."""
        if self._lifetime.remember_s is None:
            return False
        return state.user == user and state.marks.is_remembered if remember is None else remember

    async def _check_account(self, state: SessionState) -> None:
        record = state.record
        if record is None or await self._accounts.counts(record):
            return
        # First, so that nobody is signed in even if the store call fails: the record counts for nobody.
        state.end(cookie=CookieChange.CLEAR)
        await self._writer.destroy(record, state.request, reason="account")
        raise SignInRevoked

    async def _end_oldest(self, state: SessionState, user: str, limit: int) -> None:
        records = await self._store.of_user(user, now_ms=self._now_ms())
        for record in sorted(records, key=sign_in_order, reverse=True)[limit:]:
            await self._writer.destroy(record, state.request, reason="limit")


def sign_in_order(record: Record) -> tuple[int, Handle]:
    """Return the sort key for sessions by sign-in; the handle decides between two of one millisecond."""
    return record.auth_ms or 0, record.handle
