"""Limits in seconds become times in milliseconds; contradictions are refused."""

from __future__ import annotations

import dataclasses
import datetime
import re
from typing import Any

import pytest

from stormcellar import Lifetime
from stormcellar.lifetime import LifetimeError
from stormcellar.stores import Handle, Record, Verifier

NOW = 1_900_000_000_000
HOUR = 3_600_000


def record(*, seen_ms: int, expires_ms: int, deadline_ms: int) -> Record:
    """Return a signed-in session's record with these times."""
    return Record(
        Handle("h" * 22), Verifier("v" * 43), "ada", NOW, NOW, NOW, seen_ms, expires_ms, deadline_ms
    )


def test_the_defaults_are_those_documented() -> None:
    """Thirty minutes idle, twelve hours in all, a touch a minute, any number of sessions."""
    lifetime = Lifetime()

    assert (lifetime.idle_s, lifetime.absolute_s, lifetime.anonymous_s) == (1800, 43_200, 1800)
    assert (lifetime.touch_after_s, lifetime.max_per_user) == (60, None)
    assert (lifetime.remember_s, lifetime.remember_idle_s, lifetime.renew_s) == (None, None, None)
    assert (lifetime.grace_s, lifetime.reauth_s) == (60, 600)
    assert lifetime.anonymous_remember_s is None


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"idle_s": 0}, "idle_s"),
        ({"idle_s": -1}, "idle_s"),
        ({"absolute_s": float("nan")}, "absolute_s"),
        ({"absolute_s": float("inf")}, "absolute_s"),
        ({"anonymous_s": 0}, "anonymous_s"),
        ({"idle_s": 43_201}, "idle_s"),
        ({"idle_s": 1800, "absolute_s": 1799}, "absolute_s"),
        ({"anonymous_s": 43_201}, "anonymous_s"),
        ({"touch_after_s": -1}, "touch_after_s"),
        ({"touch_after_s": 1800}, "touch_after_s"),
        ({"touch_after_s": float("nan")}, "touch_after_s"),
        ({"touch_after_s": 60, "anonymous_s": 60}, "touch_after_s"),
        ({"max_per_user": 0}, "max_per_user"),
        ({"absolute_s": 43_200, "remember_s": 43_199}, "remember_s"),
        ({"remember_s": 401 * 86_400}, "remember_s"),
        ({"remember_idle_s": 60}, "remember_idle_s"),
        ({"remember_s": 86_400, "remember_idle_s": 86_401}, "remember_idle_s"),
        ({"anonymous_s": 1800, "anonymous_remember_s": 1799}, "anonymous_remember_s"),
        ({"anonymous_remember_s": 401 * 86_400}, "anonymous_remember_s"),
        ({"anonymous_remember_s": float("nan")}, "anonymous_remember_s"),
        ({"grace_s": 60, "renew_s": 60}, "grace_s"),
        ({"renew_s": 0}, "renew_s"),
        ({"grace_s": 0}, "grace_s"),
        ({"reauth_s": float("nan")}, "reauth_s"),
    ],
)
def test_impossible_and_contradictory_limits_are_refused(limits: dict[str, Any], named: str) -> None:  # B10
    """The error names the limit that is not valid."""
    with pytest.raises(ValueError, match=named):
        Lifetime(**limits)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Lifetime)])
@pytest.mark.parametrize("value", ["3", datetime.timedelta(minutes=1)])
def test_limit_that_is_not_a_number_is_named(name: str, value: object) -> None:
    """The error names the field and shows the value."""
    with pytest.raises(TypeError, match=re.escape(f"{name} must be a number, not {value!r}")):
        Lifetime(**{name: value})  # type: ignore[arg-type]


def test_a_timedelta_is_told_what_to_write() -> None:
    """The field is in seconds; the message says how to get them."""
    with pytest.raises(TypeError, match=r"write \.total_seconds\(\)"):
        Lifetime(idle_s=datetime.timedelta(minutes=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "shortened"),
    [
        ({"absolute_s": 1200}, {"idle_s": 1200, "anonymous_s": 1200}),
        ({"absolute_s": 20}, {"idle_s": 20, "anonymous_s": 20, "touch_after_s": 10}),
        ({"idle_s": 30}, {"touch_after_s": 15}),
        ({"anonymous_s": 30}, {"touch_after_s": 15}),
        ({"anonymous_remember_s": 600}, {"anonymous_s": 600}),
        ({"remember_s": 1200}, {"absolute_s": 1200, "idle_s": 1200, "anonymous_s": 1200}),
        ({"renew_s": 60}, {"grace_s": 30}),
        ({"idle_s": 1200}, {}),
    ],
)
def test_a_default_yields_to_what_was_set(given: dict[str, float], shortened: dict[str, float]) -> None:
    """A limit that nobody set becomes as short as those that were set need; the others stay."""
    expected = {**dataclasses.asdict(Lifetime()), **given, **shortened}

    assert dataclasses.asdict(Lifetime(**given)) == expected  # type: ignore[arg-type]


def test_a_default_that_yielded_can_be_replaced() -> None:
    """Another limit, set later, shortens it again, and what was set stays."""
    short = dataclasses.replace(Lifetime(idle_s=900), absolute_s=600, idle_s=300)

    assert (short.idle_s, short.anonymous_s, short.touch_after_s) == (300, 600, 60)
    assert repr(Lifetime().idle_s) == "1800"


def test_none_is_for_optional_limits_only() -> None:
    """A limit that every session has cannot be switched off."""
    assert Lifetime(remember_s=None, max_per_user=None) == Lifetime()
    with pytest.raises(TypeError, match="idle_s must be a number, not None"):
        Lifetime(idle_s=None)  # type: ignore[arg-type]


def test_needed_limit_that_is_missing_is_named() -> None:
    """A limit that has no effect alone is reported with the other one."""
    with pytest.raises(LifetimeError, match=r"^remember_idle_s: it also needs remember_s$"):
        Lifetime(remember_idle_s=60)


def test_equal_limits_do_not_contradict() -> None:
    """A session may idle for as long as it may live at all."""
    lifetime = Lifetime(idle_s=600, anonymous_s=600, absolute_s=600)

    assert lifetime.expires_ms(user="ada", now_ms=NOW, deadline_ms=lifetime.deadline_ms(NOW)) == NOW + 600_000


def test_visitors_and_users_idle_for_different_times() -> None:  # B11
    """A session without a user may be given a shorter life than one that is signed in."""
    lifetime = Lifetime(idle_s=1800, anonymous_s=300)

    assert lifetime.expires_ms(user=None, now_ms=NOW, deadline_ms=NOW + HOUR) == NOW + 300_000
    assert lifetime.expires_ms(user="ada", now_ms=NOW, deadline_ms=NOW + HOUR) == NOW + 1_800_000


def test_who_is_kept_signed_in_has_limits_of_their_own() -> None:  # B2
    """Both limits follow from one, or are given each; whoever does not ask keeps the usual ones."""
    one, both = Lifetime(remember_s=86_400), Lifetime(remember_s=86_400, remember_idle_s=3600)
    deadline_ms = one.deadline_ms(NOW, is_remembered=True)

    assert (deadline_ms, one.deadline_ms(NOW)) == (NOW + 24 * HOUR, NOW + 12 * HOUR)
    assert [
        each.expires_ms(user="ada", now_ms=NOW, deadline_ms=deadline_ms, is_remembered=True)
        for each in (one, both)
    ] == [NOW + 24 * HOUR, NOW + HOUR]
    assert (one.longest_s, Lifetime().longest_s) == (86_400, 43_200)


def test_visitor_who_is_kept_has_own_limits() -> None:  # B2, B11
    """Both of a visitor's limits change, and none of a user's; signatures are valid for as long."""
    kept = Lifetime(anonymous_remember_s=30 * 86_400)
    deadline_ms = kept.deadline_ms(NOW, is_visitor=True)

    assert deadline_ms == NOW + 400 * 24 * HOUR
    assert kept.expires_ms(user=None, now_ms=NOW, deadline_ms=deadline_ms) == NOW + 30 * 24 * HOUR
    assert kept.deadline_ms(NOW) == Lifetime().deadline_ms(NOW)
    assert kept.expires_ms(user="ada", now_ms=NOW, deadline_ms=deadline_ms) == NOW + HOUR // 2
    assert kept.longest_s == 400 * 86_400
    assert Lifetime().deadline_ms(NOW, is_visitor=True) == Lifetime().deadline_ms(NOW)


@pytest.mark.parametrize(("limit_s", "due_s"), [(30 * 86_400, 86_400), (36_000, 3600)])
def test_visitors_cookie_is_due_again_after_a_day_or_a_tenth(limit_s: float, due_s: int) -> None:  # A12
    """Whichever is less; a cookie from before the last rotation is never sent again, nor is a user's."""
    lifetime = Lifetime(anonymous_remember_s=limit_s)
    user = record(seen_ms=NOW, expires_ms=NOW + HOUR, deadline_ms=NOW + HOUR)
    visitor = dataclasses.replace(user, user=None)
    signed_s, later_ms = NOW // 1000, NOW + 1000 * due_s

    assert not lifetime.wants_cookie_again(visitor, signed_s=signed_s, now_ms=later_ms - 1)
    assert lifetime.wants_cookie_again(visitor, signed_s=signed_s, now_ms=later_ms)
    assert not lifetime.wants_cookie_again(visitor, signed_s=signed_s - 1, now_ms=later_ms)
    assert not lifetime.wants_cookie_again(user, signed_s=signed_s, now_ms=later_ms)
    assert not Lifetime().wants_cookie_again(visitor, signed_s=signed_s, now_ms=later_ms)


def test_a_renewal_is_due_after_its_period() -> None:  # C13
    """One millisecond before there is none, and without a period there never is."""
    issued = record(seen_ms=NOW, expires_ms=NOW + HOUR, deadline_ms=NOW + HOUR)
    lifetime = Lifetime(renew_s=900)

    assert not lifetime.wants_renewal(issued, now_ms=NOW + 899_999)
    assert lifetime.wants_renewal(issued, now_ms=NOW + 900_000)
    assert not Lifetime().wants_renewal(issued, now_ms=NOW + 10**9)


def test_the_expiry_never_passes_the_deadline() -> None:  # B2
    """Activity just before the deadline moves the expiry up to it, not beyond."""
    assert Lifetime().expires_ms(user="ada", now_ms=NOW, deadline_ms=NOW + 1) == NOW + 1


def test_fractions_of_a_second_count() -> None:
    """Limits are rounded to the millisecond, not to the second."""
    lifetime = Lifetime(idle_s=0.5, anonymous_s=0.25, absolute_s=0.75, touch_after_s=0)

    assert lifetime.expires_ms(user=None, now_ms=0, deadline_ms=lifetime.deadline_ms(0)) == 250
    assert lifetime.deadline_ms(0) == 750


def test_a_touch_is_due_after_its_interval() -> None:  # B7
    """One millisecond before the interval is over no touch is wanted; then it is."""
    seen = record(seen_ms=NOW, expires_ms=NOW + HOUR, deadline_ms=NOW + 2 * HOUR)

    assert not Lifetime().wants_touch(seen, now_ms=NOW + 59_999)
    assert Lifetime().wants_touch(seen, now_ms=NOW + 60_000)


def test_no_touch_where_the_deadline_already_rules() -> None:  # B7
    """An expiry that has reached the deadline cannot move, so nothing is written for it.

    But the list of sessions would call one that lasts for weeks unused: what it shows is late by the idle
    limit at most.
    """
    seen = record(seen_ms=NOW, expires_ms=NOW + HOUR, deadline_ms=NOW + HOUR)

    assert not Lifetime().wants_touch(seen, now_ms=NOW + 1_799_999)
    assert Lifetime().wants_touch(seen, now_ms=NOW + 1_800_000)


def test_no_touch_while_the_clock_is_behind() -> None:  # B6
    """After the clock was set back nothing is due before it has caught up."""
    seen = record(seen_ms=NOW, expires_ms=NOW + HOUR, deadline_ms=NOW + 2 * HOUR)

    assert not Lifetime().wants_touch(seen, now_ms=NOW - HOUR)


def test_all_problems_are_reported_at_once() -> None:
    """Each problem is one line that can be shown with other names and units."""
    with pytest.raises(LifetimeError) as caught:
        Lifetime(idle_s=43_201, touch_after_s=1800)

    lines = [problem.line(str.upper, "{:.0f} s".format) for problem in caught.value.problems]
    assert str(caught.value) == (
        "idle_s: 43201 is not valid: it must be at most absolute_s, 43200; "
        "touch_after_s: 1800 is not valid: it must be shorter than anonymous_s, 1800"
    )
    assert lines == [
        "IDLE_S: 43201 s is not valid: it must be at most ABSOLUTE_S, 43200 s",
        "TOUCH_AFTER_S: 1800 s is not valid: it must be shorter than ANONYMOUS_S, 1800 s",
    ]
