"""Tests of your own application: a session manager with a clock that moves and a store that fails."""

from stormcellar.testing.clock import Clock
from stormcellar.testing.cookies import CookieJar, CookieRefused, CookieRefusedWarning
from stormcellar.testing.faulty_store import FaultyStore
from stormcellar.testing.managers import make_manager

__all__ = [
    "Clock",
    "CookieJar",
    "CookieRefused",
    "CookieRefusedWarning",
    "FaultyStore",
    "make_manager",
]
