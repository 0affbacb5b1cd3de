"""The pages in two real browsers, over TLS: they show at once what happens in the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest

from stormcellar.stores import StoreUnavailable
from tests.app.live.conftest import LiveSite, OpenChromium, told
from tests.support.chromium import Chromium
from tests.support.site import PASSWORD


def entries(browser: Chromium) -> int:
    """Return how many sessions the page lists."""
    return int(browser.script("return document.querySelectorAll('.sessions li').length"))


@contextmanager
def new_tab(browser: Chromium) -> Iterator[None]:
    """Go to a new tab, and back in the end."""
    tab = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    try:
        yield
    finally:
        browser.driver.close()
        browser.driver.switch_to.window(tab)


def test_list_follows_the_other_browser(live: LiveSite, browser: Chromium, other: Chromium) -> None:
    """A new sign-in appears, and disappears when it signs out; the page is never loaded again."""
    browser.sign_in("alice", PASSWORD)
    browser.press("Sessions")
    browser.script("window.isSame = true")
    counts = [entries(browser)]
    other.sign_in("alice", PASSWORD)
    browser.wait(lambda: entries(browser) == 2)
    text = browser.text
    other.press("Sign out")
    browser.wait(lambda: entries(browser) == 1)

    assert counts == [1]
    assert text.count("this session") == 1
    assert "Sign out all others" in text
    assert "Sign out all others" not in browser.text
    assert other.heading == "You are signed out"
    assert browser.script("return window.isSame")


@pytest.mark.parametrize("path", ["/", "/account/password", "/nowhere"])
def test_signed_out_browser_is_led_to_sign_in(
    path: str, live: LiveSite, browser: Chromium, other: Chromium
) -> None:
    """From any page, at once, and signing in leads back to that page."""
    browser.sign_in("alice", PASSWORD)
    other.sign_in("alice", PASSWORD)
    other.open(path)
    browser.open("/account/sessions")
    live.wait_for_streams(2)
    other.leave(lambda: browser.press("Sign out all others"))
    led_to, told = other.path, other.text
    other.fill_in(username="alice", password=PASSWORD)
    other.press("Sign in")

    assert led_to == "/login?" + urlencode({"next": path, "ended": 1})
    assert "You were signed out." in told
    assert other.path == path
    assert browser.path == "/account/sessions"


def test_answer_to_a_form_leads_to_the_page_of_the_form(
    live: LiveSite, browser: Chromium, other: Chromium
) -> None:
    """Its own address accepts no GET."""
    browser.sign_in("alice", PASSWORD)
    other.sign_in("alice", PASSWORD)
    other.open("/account/password")
    other.fill_in(current="wrong", new="a storm in the cellar")
    other.press("Change password")
    live.wait_for_streams(2)
    browser.open("/account/sessions")
    other.leave(lambda: browser.press("Sign out all others"))

    assert other.path == "/login?next=%2Faccount%2Fpassword&ended=1"


def test_who_signs_out_sees_that(live: LiveSite, browser: Chromium) -> None:
    """Not the sign-in page, although the stream of the page ends first; a hidden tab is led to sign-in."""
    browser.sign_in("alice", PASSWORD)
    browser.open("/account/password")
    hidden = browser.driver.current_window_handle
    with new_tab(browser):
        browser.open("/")
        live.wait_for_streams(1)
        browser.press("Sign out")
        heading = browser.heading
        live.wait_for_streams(0)
    browser.driver.switch_to.window(hidden)
    browser.wait(lambda: browser.path == "/login?next=%2Faccount%2Fpassword&ended=1")

    assert heading == "You are signed out"


def test_hidden_tab_has_no_connection(live: LiveSite, browser: Chromium) -> None:
    """It connects when it is shown; so any number of tabs takes one of the few connections to a host."""
    browser.sign_in("alice", PASSWORD)
    live.wait_for_streams(1)
    tab = browser.driver.current_window_handle
    with new_tab(browser):
        live.wait_for_streams(0)
        browser.open("/account/sessions")
        live.wait_for_streams(1)
        browser.driver.switch_to.window(tab)
        live.wait_for_streams(1)
        browser.script("window.isSame = true")
        browser.driver.switch_to.window(browser.driver.window_handles[-1])
    live.wait_for_streams(1)

    assert browser.script("return window.isSame")


def test_form_survives_a_password_in_another_tab(live: LiveSite, browser: Chromium) -> None:
    """What was typed stays, and the form works although the session has another ID."""
    browser.sign_in("alice", PASSWORD)
    browser.open("/account/password")
    browser.wait(lambda: told(browser) == 1)
    browser.fill_in(current=PASSWORD, new="a storm in the cellar")
    with new_tab(browser):
        browser.open("/account/confirm")
        live.site.clock.advance(1)
        browser.fill_in(password=PASSWORD)
        browser.press("Continue")
        live.wait_for_streams(1)
    live.wait_for_streams(1)
    browser.wait(lambda: told(browser) == 2)
    browser.press("Change password")

    assert browser.find("[role=status]").text.startswith("Your password was changed.")


def test_another_user_in_another_tab_is_noticed(live: LiveSite, browser: Chromium) -> None:
    """The page of the first user goes: it leads to sign-in, which says who is signed in now."""
    browser.sign_in("alice", PASSWORD)
    browser.open("/account/password")
    with new_tab(browser):
        live.site.clock.advance(1)
        browser.sign_in("bob", PASSWORD)
    browser.wait(lambda: browser.path == "/login?next=%2Faccount%2Fpassword&ended=1")

    assert "You are signed in as bob. Continue" in browser.text
    browser.press("Continue")
    assert browser.path == "/account/password"
    live.wait_for_streams(1)


def test_warning_goes_after_activity_in_another_tab(live: LiveSite, browser: Chromium) -> None:
    """The time left is that of the session, not that of the page."""
    browser.sign_in("alice", PASSWORD)
    browser.wait(lambda: told(browser) == 1)
    live.site.clock.advance(1750)
    browser.script("document.getAnimations().forEach(each => each.currentTime = 1.75e6)")
    soon = browser.find("#idle-soon")
    was_shown = soon.is_displayed()
    browser.script("return fetch('/account/password')")
    browser.wait(lambda: not soon.is_displayed())

    assert was_shown
    assert browser.find("#idle").get_attribute("href").endswith("/idle.css?left=1800")


def test_page_comes_back_after_an_outage(live: LiveSite, browser: Chromium) -> None:
    """After a random and growing time of at most a minute. It stays where it is meanwhile."""
    browser.sign_in("alice", PASSWORD)
    live.wait_for_streams(1)
    browser.script(
        "window.waits = []; const later = setTimeout; Math.random = () => 1;"
        "window.setTimeout = (call, ms) => { waits.push(ms); return later(call, 10); }"
    )
    live.site.store.fail["load"] = StoreUnavailable("load")
    live.call(live.cut())
    browser.wait(lambda: len(browser.script("return waits")) >= 7)
    heading = browser.heading
    live.site.store.fail.clear()
    live.wait_for_streams(1)

    assert heading == "Hello, alice"
    assert browser.script("return waits")[:7] == [4000, 8000, 16000, 32000, 60000, 60000, 60000]


def test_focus_stays_where_it_was(live: LiveSite, browser: Chromium, other: Chromium) -> None:
    """On the button of the same session; on the list when that session is over, and not on another button."""
    other.sign_in("alice", PASSWORD)
    live.site.clock.advance(300)
    browser.sign_in("alice", PASSWORD)
    browser.press("Sessions")
    focus = "return document.activeElement.getAttribute('aria-label')"
    elsewhere = browser.script(focus)
    browser.script("document.querySelectorAll('.sessions button')[1].focus()")
    before = browser.script(focus)
    other.open("/")
    browser.wait(lambda: browser.script(focus) != before)
    during = browser.script(focus)
    other.press("Sign out")
    browser.wait(lambda: entries(browser) == 1)

    assert elsewhere is None
    assert before.startswith("Sign out Chrome on Linux") and before.endswith("active 5 minutes ago")
    assert during.startswith("Sign out Chrome on Linux") and during.endswith("active just now")
    assert browser.script(focus) == "Sessions"


def test_list_is_accessible_after_a_change(live: LiveSite, browser: Chromium, other: Chromium) -> None:
    """No violation of any rule of axe-core."""
    browser.sign_in("alice", PASSWORD)
    browser.press("Sessions")
    other.sign_in("alice", PASSWORD)
    browser.wait(lambda: entries(browser) == 2)

    assert browser.audit() == []


def test_pages_work_without_javascript(live: LiveSite, browser: Chromium, chromium: OpenChromium) -> None:
    """As before: there is no stream, and the next page tells what has happened."""
    browser.sign_in("alice", PASSWORD)
    with chromium("blink-settings=scriptEnabled=false") as plain:
        plain.base = live.site.base
        plain.sign_in("alice", PASSWORD)
        plain.press("Sessions")
        text = plain.text
        browser.open("/account/sessions")
        live.wait_for_streams(1)
        plain.press("Sign out all others")
        status = plain.find("[role=status]").text
        browser.wait(lambda: browser.heading == "Sign in")
        plain.press("Sign out")
        heading = plain.heading

    assert text.count("Chrome on Linux") == 2
    assert (status, heading) == ("All other sessions were signed out.", "You are signed out")
