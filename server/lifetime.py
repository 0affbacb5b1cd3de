"""How long sessions live."""

from __future__ import annotations

from dataclasses import dataclass

from stormcellar.stores import Record

MAX_S = 10 * 366 * 86_400
# Browsers keep no cookie longer (RFC 6265bis, 5.5).
MAX_COOKIE_S = 400 * 86_400


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The limits of a session's life. Seconds in the fields; milliseconds of Unix time in the methods.

    Source: OWASP ASVS 5.0 V7.3 (idle and absolute), OWASP Session Management Cheat Sheet.

    Raises:
        ValueError: A limit is not positive, or two contradict each other.
    """

    idle_s: float = 1800
    """A signed-in session ends after this long without activity."""
    absolute_s: float = 43_200
    """Any session ends this long after sign-in (anonymous: after creation), whatever its activity."""
    anonymous_s: float = 1800
    """An anonymous session ends after this long without activity."""
    touch_after_s: float = 60
    """A read records activity at most this often; what is written always counts at once."""
    remember_s: float | None = None
    """The absolute limit for those who asked to be kept signed in. None: nobody is asked."""
    remember_idle_s: float | None = None
    """Their idle limit. None: as `remember_s`."""
    renew_s: float | None = None
    """A request this long after the session ID was issued gets another one. None: only where asked for."""
    grace_s: float = 60
    """After such a renewal the old ID still serves requests under way. Never at a change of privilege."""
    reauth_s: float = 600
    """How recent the last proof of who it is must be for `@reauthenticated`."""
    max_per_user: int | None = None
    """How many sessions of one user may live; a sign-in ends the oldest beyond it. None: any number."""

    def __post_init__(self) -> None:
        for name in ("idle_s", "absolute_s", "anonymous_s", "grace_s", "reauth_s"):
            _require_between(name, getattr(self, name), MAX_S)
        for name in ("remember_s", "remember_idle_s", "renew_s"):
            if (limit := getattr(self, name)) is not None:
                _require_between(name, limit, MAX_S if name == "renew_s" else MAX_COOKIE_S)
        for name in ("idle_s", "anonymous_s"):
            if getattr(self, name) > self.absolute_s:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) is longer than absolute_s ({self.absolute_s})"
                )
        if not 0 <= self.touch_after_s < min(self.idle_s, self.anonymous_s):
            raise ValueError(f"touch_after_s ({self.touch_after_s}) must be shorter than the idle limits")
        if self.remember_idle_s is not None and self.remember_idle_s > (self.remember_s or 0):
            raise ValueError(f"remember_idle_s ({self.remember_idle_s}) is longer than remember_s")
        if self.remember_s is not None and self.remember_s < self.absolute_s:
            raise ValueError(f"remember_s ({self.remember_s}) is shorter than absolute_s ({self.absolute_s})")
        if self.renew_s is not None and self.grace_s >= self.renew_s:
            raise ValueError(f"grace_s ({self.grace_s}) must be shorter than renew_s ({self.renew_s})")
        if self.max_per_user is not None and self.max_per_user < 1:
            raise ValueError(f"max_per_user must be at least 1, not {self.max_per_user}")

    @property
    def longest_s(self) -> float:
        """The longest that any session lives."""
        return max(self.absolute_s, self.remember_s or 0)

    def deadline_ms(self, now_ms: int, *, is_remembered: bool = False) -> int:
        """Return when a session that starts or signs in now must end."""
        return now_ms + round(
            1000 * (self.remember_s if is_remembered and self.remember_s else self.absolute_s)
        )

    def expires_ms(
        self, *, user: str | None, now_ms: int, deadline_ms: int, is_remembered: bool = False
    ) -> int:
        """Return when a session active now ends if nothing more happens."""
        idle_s = self.anonymous_s if user is None else self.idle_s
        if is_remembered:
            idle_s = self.remember_idle_s or self.remember_s or idle_s
        return min(now_ms + round(idle_s * 1000), deadline_ms)

    def wants_renewal(self, record: Record, *, now_ms: int) -> bool:
        """Whether the session ID is old enough to be replaced in passing."""
        return self.renew_s is not None and now_ms - record.rotated_ms >= self.renew_s * 1000

    def wants_touch(self, record: Record, *, now_ms: int) -> bool:
        """Whether a read should record activity: not too soon.

        Where the deadline already rules it moves nothing but `seen_ms`, which is let lag by `idle_s` then.
        """
        age_ms = now_ms - record.seen_ms
        moves = record.expires_ms < record.deadline_ms
        return age_ms >= 1000 * (self.touch_after_s if moves else max(self.touch_after_s, self.idle_s))


def _require_between(name: str, seconds: float, most_s: float) -> None:
    if not 0 < seconds <= most_s:
        raise ValueError(f"{name} must be above 0 and at most {most_s // 86_400} days, not {seconds!r}")
