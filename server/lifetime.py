"""How long sessions live."""

from __future__ import annotations

from dataclasses import dataclass

from stores import Record


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
    max_per_user: int | None = None
    """How many sessions of one user may live; a sign-in ends the oldest beyond it. None: any number."""

    def __post_init__(self) -> None:
        for name in ("idle_s", "absolute_s", "anonymous_s"):
            if not 0 < getattr(self, name) <= 10 * 366 * 86_400:
                raise ValueError(f"{name} must be above 0 and at most ten years, not {getattr(self, name)!r}")
        for name in ("idle_s", "anonymous_s"):
            if getattr(self, name) > self.absolute_s:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) is longer than absolute_s ({self.absolute_s})"
                )
        if not 0 <= self.touch_after_s < min(self.idle_s, self.anonymous_s):
            raise ValueError(f"touch_after_s ({self.touch_after_s}) must be shorter than the idle limits")
        if self.max_per_user is not None and self.max_per_user < 1:
            raise ValueError(f"max_per_user must be at least 1, not {self.max_per_user}")

    def deadline_ms(self, now_ms: int) -> int:
        """Return when a session that starts or signs in now must end."""
        return now_ms + round(self.absolute_s * 1000)

    def expires_ms(self, *, user: str | None, now_ms: int, deadline_ms: int) -> int:
        """Return when a session active now ends if nothing more happens."""
        idle_s = self.anonymous_s if user is None else self.idle_s
        return min(now_ms + round(idle_s * 1000), deadline_ms)

    def wants_touch(self, record: Record, *, now_ms: int) -> bool:
        """Whether a read should record activity: not too soon, and not where the deadline already rules."""
        due = now_ms - record.seen_ms >= self.touch_after_s * 1000
        return due and record.expires_ms < record.deadline_ms
