"""`Session`: what a handler uses. A mapping that tracks its changes, and the verbs of a session."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine
from functools import wraps
from secrets import token_hex
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from stormcellar.sessions.data.keys import Key, V
from stormcellar.sessions.data.limits import FLASH
from stormcellar.sessions.data.mapping import SessionMapping
from stormcellar.sessions.lifecycle import Lifecycle
from stormcellar.sessions.state import SessionState
from stormcellar.stores import Record
from stormcellar.stores.records import check_keys, check_user

P = ParamSpec("P")
T = TypeVar("T")
Verb = Callable[Concatenate["Session", P], Coroutine[Any, Any, T]]


def _verb(method: Verb[P, T]) -> Verb[P, T]:
    """Remember each call of *method*, so that a call without `await` is noticed with the response."""

    @wraps(method)
    def call(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        called = method(session, *args, **kwargs)
        session._state.called.append((method.__name__, called))
        return called

    return call


class Session(SessionMapping):
    """The session of one request: a mapping from key to JSON value.

    Keys match `[A-Za-z_][A-Za-z0-9_:-]{0,63}`. Values are JSON: None, bool, int, float, str, list, and dict
    with str keys. Changes, nested ones too, are saved with the response as one atomic delta; a value that
    was only read is not written. An empty session is falsy: test `is not None` where that is meant.

    `SessionManager.load` creates it. It belongs to one request and to one task at a time.
    """

    __slots__ = ("__weakref__", "_lifecycle")

    def __init__(self, lifecycle: Lifecycle, state: SessionState) -> None:
        self._lifecycle = lifecycle
        self._state = state

    # --- who ---

    @property
    def user(self) -> str | None:
        """Who is signed in, or None."""
        return self._state.user

    @property
    def handle(self) -> str | None:
        """Identifies this session in logs and lists; None while there is no record."""
        return self._state.handle

    @property
    def record(self) -> Record | None:
        """The stored times, user and client, as this request knows them; None while there is no record."""
        return self._state.record

    # --- the verbs ---

    @_verb
    async def login(
        self,
        user: str,
        *,
        keep: Collection[str | Key[Any]] = (),
        auth_ms: int | None = None,
        remember: bool | None = None,
        afresh: bool = True,
    ) -> None:
        """Sign *user* in and rotate the session ID, in one atomic step. The old ID is invalid from then on.

        Args:
            user: Any non-empty string that UTF-8 can encode.
            keep: The keys that survive sign-in from an anonymous session. Signing in again as the same user
                keeps all keys; signing in over another user keeps none.
            auth_ms: When the user proved who they are, if that was before now (Unix time in milliseconds).
                Read the clock before the password is checked, so that a password change meanwhile counts.
            remember: Keep the user signed in after the browser closes, within `Lifetime.remember_s`; without
                that setting it has no effect. None: as before, if it is the same user.
            afresh: If the session ended or was rotated meanwhile, create another one, as a sign-in form
                does. False: raise SessionChanged, as for a second proof within the session, or SessionEnded
                if it was over before the request.

        Raises:
            SessionChanged, SessionEnded: Not *afresh*, and there is no such session now; nothing was done.
            SignInRevoked: The account was disabled or changed meanwhile; nobody is signed in.
            InsecureTransport: This request must not be given a session cookie; nothing was done.
            StoreUnavailable: No answer. The cookie is untouched, unless the ID is known to have changed.
        """
        self._state.require_browser()
        if not isinstance(user, str):
            advice = "logout() signs out" if user is None else "write str(user)"
            raise TypeError(f"user must be a str, not {type(user).__name__}: {advice}")
        check_user(user)
        if isinstance(keep, str | bytes):
            raise TypeError("keep must be a collection of keys, not one string")
        kept: Collection[Any] = keep
        check_keys(kept)
        await _shielded(
            self._lifecycle.sign_in.login(
                self._state, user, keep=kept, auth_ms=auth_ms, remember=remember, afresh=afresh
            )
        )

    @_verb
    async def logout(self) -> None:
        """End the session in the store, then clear the cookie. Does nothing if there is no session.

        After it only `login` and messages can change the session; `flash` begins a visitor's session.
        """
        self._state.require_open()
        await self._lifecycle.logout(self._state)

    @_verb
    async def renew(self) -> None:
        """Rotate the session ID, at a change of privilege. Does nothing without a record.

        Raises:
            SessionChanged: The session ended or was rotated meanwhile.
        """
        self._state.require_browser()
        await _shielded(self._lifecycle.renew(self._state))

    @_verb
    async def expire_in(self, seconds: float) -> None:
        """End this session after *seconds*, active or not, but never later than without this call.

        Rotates the session ID. If there is no record yet, the one that this request creates is limited. The
        limit lasts until a later request signs a user in or takes a second proof.

        Raises:
            ValueError: Not a positive number.
            SessionChanged: The session ended or was rotated meanwhile.
        """
        self._state.require_browser()
        self._state.require_writable()
        if not 0 < seconds < math.inf:
            raise ValueError(f"a session expires in a positive number of seconds, not {seconds!r}")
        await _shielded(self._lifecycle.limit(self._state, seconds))

    @_verb
    async def commit(self) -> None:
        """Save now what would be saved with the response.

        Raises:
            SessionEnded: The request is late: the session ended or its ID was rotated while it was on its
                way. So do `renew`, `expire_in`, `modify` and `reload`.
            SessionChanged, SessionTooLarge, StoreUnavailable
        """
        self._state.require_open()
        await self._lifecycle.commit(self._state)

    @overload
    async def modify(self, /, key: Key[V], change: Callable[[V | None], V]) -> V: ...
    @overload
    async def modify(self, /, key: str, change: Callable[[Any], Any]) -> Any: ...
    @_verb
    async def modify(self, key: Any, change: Callable[[Any], Any]) -> Any:
        """Replace the value of *key* by `change(value)`, atomically against every other request.

        *change* gets the current value (None if absent) and is called again if another request was faster.
        Other pending changes are saved first.

        Returns:
            The new value.

        Raises:
            SessionChanged: The session ended or was rotated, or other requests were faster for two seconds.
            SessionEnded, SessionTooLarge, StoreUnavailable
        """
        self._state.require_writable()
        return await self._lifecycle.modify(self._state, key, change)

    @_verb
    async def reload(self) -> None:
        """Read again what is stored now, in a handler that runs for long; unsaved changes stay.

        Objects that were read before do not change: read them again. Does nothing without a record.

        Raises:
            SessionChanged: The session ended or its ID was rotated meanwhile.
            StoreUnavailable: No answer.
        """
        await self._lifecycle.reload(self._state)

    # --- messages for the next page ---

    def flash(self, message: str) -> None:
        """Keep *message*, plain text, for the next page that calls `flashes()`.

        Each message has its own key, so parallel requests lose none. Iteration omits these keys. A message
        of a request that signs in or out reaches the next page, before or after that call.
        """
        self._state.require_open()
        if not isinstance(message, str) or not message:
            raise ValueError("a message is a non-empty string")
        number = len(self._flash_keys())
        self._state.data.write(f"{FLASH}{number:03}:{token_hex(8)}", message)

    def flashes(self) -> list[str]:
        """Return the messages, oldest first, and remove them.

        If the session can no longer change, as on an error page, they stay for the next page.
        """
        keys = self._flash_keys()
        messages = [self[key] for key in keys]
        for key in () if self._state.sealed else keys:
            self._state.data.delete(key)
        return [message for message in messages if isinstance(message, str)]

    def _flash_keys(self) -> list[str]:
        return sorted(key for key in self._state.data.names() if key.startswith(FLASH) and key in self)

    def __repr__(self) -> str:
        return f"<Session {self.handle} {self._state.presence.name.lower()}>"


def state_of(session: Session) -> SessionState:
    """Return the state behind *session*, for the manager and for web adapters."""
    return session._state


async def _shielded(verb: Coroutine[Any, Any, None]) -> None:
    """Await *verb*; a cancelled handler does not stop it, since it may hold the only copy of a new secret.

    It holds the lock of the session, and the response waits for that lock.
    """
    await asyncio.shield(asyncio.get_running_loop().create_task(verb))
