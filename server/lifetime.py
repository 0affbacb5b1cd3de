"""`Lifetime`: the limits of a session's life."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import timedelta

from stormcellar.stores import Record

MAX_S = 10 * 366 * 86_400
# Browsers keep no cookie longer (RFC 6265bis, 5.5).
MAX_COOKIE_S = 400 * 86_400
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class LimitProblem:
    """A limit that breaks a rule: *name* must be *rule* the other limit, *bound_name*, which is *bound*.

    If *bound* is None, *name* needs the other limit, which is not given.
    """

    name: str
    value: float
    rule: str
    bound: float | None
    bound_name: str | None = None

    def line(self, label: Callable[[str], str] = str, number: Callable[[float], str] = str) -> str:
        """Return the problem in one line; *label* and *number* spell names and values."""
        bound = [] if self.bound_name is None else [label(self.bound_name)]
        if self.bound is None:
            return f"{label(self.name)}: it also needs {', '.join(bound)}"
        bound.append(number(self.bound))
        found = f"{label(self.name)}: {number(self.value)} is not valid"
        return f"{found}: it must be {self.rule} {', '.join(bound)}"


class LifetimeError(ValueError):
    """Limits that are out of range or contradict each other: every one of them."""

    def __init__(self, *problems: LimitProblem) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "; ".join(each.line() for each in self.problems)


class Default(float):
    """A limit that nobody set. It becomes shorter where a limit that was set leaves less."""

    def __repr__(self) -> str:
        return f"{float(self):g}"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The limits of a session's life. Seconds in the fields; milliseconds of Unix time in the methods.

    A limit that is not given is shorter than its default where another one needs that, never longer: with
    `absolute_s=600` alone, `idle_s` is 600 as well.

    Source: OWASP ASVS 5.0 V7.3 (idle and absolute), OWASP Session Management Cheat Sheet.

    Raises:
        LifetimeError: A limit is out of range, or two contradict each other. A ValueError.
        TypeError: A limit is not a number.
    """

    idle_s: float = Default(1800)
    """A signed-in session ends after this long without activity."""
    absolute_s: float = Default(43_200)
    """Any session ends this long after sign-in (a visitor's: after creation), active or not."""
    anonymous_s: float = Default(1800)
    """A visitor's session ends after this long without activity."""
    touch_after_s: float = Default(60)
    """A read records activity at most this often; a write always does."""
    remember_s: float | None = None
    """The absolute limit of a user who asked to be kept signed in. None: not offered."""
    remember_idle_s: float | None = None
    """The idle limit of such a user. None: as `remember_s`."""
    renew_s: float | None = None
    """The session ID is rotated when it is older than this. None: only at `login` and `renew`."""
    grace_s: float = Default(60)
    """After such a periodic renewal the old ID is valid this long, for requests already sent."""
    reauth_s: float = 600
    """How recent the last proof of identity must be for `@reauthenticated`."""
    max_per_user: int | None = None
    """Sessions per user; a sign-in ends the oldest ones beyond it. None: any number."""
    anonymous_remember_s: float | None = None
    """A visitor's session outlives the browser, ends after this long without activity, and 400 days after its
    creation. It replaces `anonymous_s` and, for visitors, `absolute_s`. None: it ends with the browser."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not isinstance(value, int | float) and (value is not None or each.default is not None):
                advice = ": write .total_seconds()" if isinstance(value, timedelta) else ""
                raise TypeError(f"{each.name} must be a number, not {value!r}{advice}")
        self._shorten("absolute_s", self.remember_s)
        self._shorten("idle_s", self.absolute_s)
        self._shorten("anonymous_s", self.absolute_s, self.anonymous_remember_s)
        self._shorten("touch_after_s", self.idle_s / 2, self.anonymous_s / 2)
        self._shorten("grace_s", self.renew_s and self.renew_s / 2)
        if problems := [*self._out_of_range(), *self._contradictory()]:
            raise LifetimeError(*problems)

    def _shorten(self, name: str, *most_s: float | None) -> None:
        """Let the limit *name* be at most each of *most_s*, unless it was given."""
        value = getattr(self, name)
        if isinstance(value, Default):
            least_s = min([value, *(each for each in most_s if each is not None and each > 0)])
            object.__setattr__(self, name, Default(least_s))

    def _out_of_range(self) -> Iterator[LimitProblem]:
        limits = dict.fromkeys(("remember_s", "remember_idle_s", "anonymous_remember_s"), MAX_COOKIE_S)
        limits["renew_s"] = MAX_S
        limits |= dict.fromkeys(("idle_s", "absolute_s", "anonymous_s", "grace_s", "reauth_s"), MAX_S)
        for name, most_s in limits.items():
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                yield LimitProblem(name, seconds, "above", 0)
            elif seconds is not None and seconds > most_s:
                yield LimitProblem(name, seconds, "at most", most_s)
        if not self.touch_after_s >= 0:
            yield LimitProblem("touch_after_s", self.touch_after_s, "at least", 0)
        if self.max_per_user is not None and self.max_per_user < 1:
            yield LimitProblem("max_per_user", self.max_per_user, "at least", 1)

    def _contradictory(self) -> Iterator[LimitProblem]:
        for name, limit_s in (("idle_s", self.idle_s), ("anonymous_s", self.anonymous_s)):
            if limit_s > self.absolute_s:
                yield LimitProblem(name, limit_s, "at most", self.absolute_s, "absolute_s")
            if self.touch_after_s >= limit_s:
                yield LimitProblem("touch_after_s", self.touch_after_s, "shorter than", limit_s, name)
        visitor_s = self.anonymous_remember_s
        if visitor_s is not None and visitor_s < self.anonymous_s:
            yield LimitProblem("anonymous_remember_s", visitor_s, "at least", self.anonymous_s, "anonymous_s")
        remember_s, idle_s = self.remember_s, self.remember_idle_s
        if remember_s is not None and remember_s < self.absolute_s:
            yield LimitProblem("remember_s", remember_s, "at least", self.absolute_s, "absolute_s")
        if idle_s is not None and remember_s is None:
            yield LimitProblem("remember_idle_s", idle_s, "", None, "remember_s")
        if idle_s is not None and remember_s is not None and idle_s > remember_s:
            yield LimitProblem("remember_idle_s", idle_s, "at most", remember_s, "remember_s")
        if self.renew_s is not None and self.grace_s >= self.renew_s:
            yield LimitProblem("grace_s", self.grace_s, "shorter than", self.renew_s, "renew_s")

    @property
    def longest_s(self) -> float:
        """The longest absolute limit."""
        return max(self.absolute_s, self.remember_s or 0, self._visitor_absolute_s)

    @property
    def _visitor_absolute_s(self) -> float:
        return self.absolute_s if self.anonymous_remember_s is None else MAX_COOKIE_S

    def deadline_ms(self, now_ms: int, *, is_remembered: bool = False, is_visitor: bool = False) -> int:
        """Return the deadline of a session that is created or signs in now."""
        absolute_s = self._visitor_absolute_s if is_visitor else self.absolute_s
        return now_ms + round(1000 * (self.remember_s if is_remembered and self.remember_s else absolute_s))

    def expires_ms(
        self, *, user: str | None, now_ms: int, deadline_ms: int, is_remembered: bool = False
    ) -> int:
        """Return when a session that is active now expires if nothing more happens."""
        idle_s = (self.anonymous_remember_s or self.anonymous_s) if user is None else self.idle_s
        if is_remembered:
            idle_s = self.remember_idle_s or self.remember_s or idle_s
        return min(now_ms + round(idle_s * 1000), deadline_ms)

    def wants_renewal(self, record: Record, *, now_ms: int) -> bool:
        """Whether the session ID is old enough for a periodic renewal."""
        return self.renew_s is not None and now_ms - record.rotated_ms >= self.renew_s * 1000

    def wants_cookie_again(self, record: Record, *, signed_s: int, now_ms: int) -> bool:
        """Whether to send a visitor's cookie again, so that it stays in the browser while it is used.

        That is due after a day, or after a tenth of `anonymous_remember_s` if that is less.

        Args:
            signed_s: When the cookie was signed. Before the last rotation, the cookie is an old one.
        """
        if (
            self.anonymous_remember_s is None
            or record.user is not None
            or signed_s < record.rotated_ms // 1000
        ):
            return False
        return now_ms - 1000 * signed_s >= 1000 * min(_DAY_S, self.anonymous_remember_s / 10)

    def wants_touch(self, record: Record, *, now_ms: int) -> bool:
        """Whether a read should record activity.

        If the expiry has reached the deadline, a touch changes only `seen_ms`; then once per `idle_s` is
        enough.
        """
        age_ms = now_ms - record.seen_ms
        moves = record.expires_ms < record.deadline_ms
        return age_ms >= 1000 * (self.touch_after_s if moves else max(self.touch_after_s, self.idle_s))
